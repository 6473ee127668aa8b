"""Signatures, judged by botocore's own signer."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from urllib.parse import quote

import pytest
from botocore.auth import SigV4Auth, SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from whiteroom.wire.errors import ApiError
from whiteroom.wire.sigv4 import Caller, Credential, HttpRequest, claimed_signing_name, verify

unhurried = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
KEY = Credential("111122223333", "AKIAPUBLISHER0000001", "s3cr3t/+of=the publisher")
ARN = "arn:aws:cleanrooms-ml:us-east-1:111122223333:training-dataset/6f1b"
PATH = f"/training-dataset/{quote(ARN, safe='')}"


def signed(
    method="GET", path=PATH, query="", body=b"", *, headers=(), key=KEY, signing_name="cleanrooms-ml",
    region="us-east-1", token=None, signer=SigV4Auth,
) -> HttpRequest:  # fmt: skip
    """A request as botocore signs it now."""
    request = AWSRequest(method=method, url=f"http://localhost:8080{path}?{query}", data=body)
    for name, value in headers:
        request.headers[name] = value
    credentials = Credentials(key.access_key_id, key.secret_access_key, token)
    signer(credentials, signing_name, region).add_auth(request)
    sent = tuple((name.lower(), value.encode().decode("latin-1")) for name, value in request.headers.items())
    query = request.url.partition("?")[2]
    return HttpRequest(method, path, query, (*sent, ("host", "localhost:8080")), body)


def verified(request, *, after=timedelta(0), signing_name="cleanrooms-ml") -> Caller:
    keys = {KEY.access_key_id: KEY}
    return verify(request, keys.get, signing_name=signing_name, now=datetime.now(UTC) + after)


def refusal(request, **how) -> tuple[str, str]:
    with pytest.raises(ApiError) as refused:
        verified(request, **how)
    return refused.value.name, refused.value.message


def with_header(request, name, value) -> HttpRequest:
    """The request with one header put in place of the ones of that name, or with none for None."""
    others = tuple(h for h in request.headers if h[0] != name)
    return replace(request, headers=others if value is None else (*others, (name, value)))


def authorization(request) -> str:
    return dict(request.headers)["authorization"]


def a_second_off(amz_date) -> str:
    return f"{amz_date[:-2]}{(int(amz_date[-2]) + 1) % 10}Z"


SEGMENTS = st.text(min_size=1).map(lambda s: quote(s, safe="")).filter(lambda s: s not in (".", ".."))
ENCODED = st.text().map(lambda s: quote(s, safe="-._~"))
RAW = st.text("abz09=~-._%!*'(),;:@/?$+ ".replace(" ", ""))


@unhurried
@given(
    method=st.sampled_from(["GET", "POST", "PUT", "PATCH", "DELETE"]),
    path=st.lists(SEGMENTS, min_size=1).map(lambda s: "/" + "/".join(s)),
    query=st.lists(st.tuples(ENCODED, ENCODED).map("=".join) | RAW).map("&".join),
    body=st.binary(),
    signing_name=st.sampled_from(["cleanrooms-ml", "cleanrooms"]),
    headers=st.lists(st.tuples(st.sampled_from(["x-amz-meta", "X-Amz-Other"]), st.text("aZ  \t,;=é\xe0"))),
)
def test_whatever_botocore_signs_is_accepted(method, path, query, body, signing_name, headers):
    request = signed(method, path, query, body, headers=headers, signing_name=signing_name)
    assert verified(request, signing_name=signing_name) == Caller(KEY.account, KEY.access_key_id, "us-east-1")


@pytest.mark.parametrize("region", ["eu-west-1", "us-gov-west-1", "cn-north-1", "us-iso-east-1"])
def test_the_caller_names_the_region_of_the_scope(region):
    assert verified(signed(region=region)).region == region


TAMPERED = {
    "method": lambda r: replace(r, method="DELETE"),
    "path": lambda r: replace(r, raw_path=r.raw_path.replace("6f1b", "6f1c")),
    "path's encoding": lambda r: replace(r, raw_path=r.raw_path.replace("%3A", ":")),
    "query": lambda r: replace(r, query="maxResults=2"),
    "query's further key": lambda r: replace(r, query=r.query + "&maxResults=1"),
    "body": lambda r: replace(r, body=b"{} "),
    "host": lambda r: with_header(r, "host", "elsewhere:8080"),
    "time": lambda r: with_header(r, "x-amz-date", a_second_off(dict(r.headers)["x-amz-date"])),
    "signed header": lambda r: with_header(r, "x-amz-meta", "other"),
    "region": lambda r: with_header(r, "authorization", authorization(r).replace("us-east-1", "us-east-2")),
    "signature": lambda r: with_header(r, "authorization", authorization(r)[:-64] + "0" * 64),
}


@pytest.mark.parametrize("what", TAMPERED)
def test_a_tampered_request_is_refused(what):
    request = signed("GET", query="maxResults=1", body=b"{}", headers=[("x-amz-meta", "one")])
    verified(request)
    assert refusal(TAMPERED[what](request))[0] == "UnrecognizedClientException"


def test_an_unknown_key_and_a_wrong_secret_get_the_same_answer():
    stranger = signed(key=Credential("", "AKIANOBODY", KEY.secret_access_key))
    impostor = signed(key=Credential("", KEY.access_key_id, "wrong"))
    assert refusal(stranger) == refusal(impostor)
    assert refusal(stranger)[0] == "UnrecognizedClientException"


@pytest.mark.parametrize("minutes", [-4.9, 4.9])
def test_five_minutes_of_difference_are_tolerated(minutes):
    verified(signed(), after=timedelta(minutes=minutes))


@pytest.mark.parametrize(("minutes", "verb"), [(5.1, "expired"), (-5.1, "not yet current"), (60 * 24, "expired")])
def test_a_replayed_or_early_request_is_refused(minutes, verb):
    name, message = refusal(signed(), after=timedelta(minutes=minutes))
    assert name == "InvalidSignatureException"
    assert message.startswith(f"Signature {verb}")


def test_a_scope_of_another_day_is_refused():
    request = signed()
    day = dict(request.headers)["x-amz-date"][:8]
    other = with_header(request, "authorization", authorization(request).replace(f"/{day}/", "/20200101/"))
    assert refusal(other)[0] == "InvalidSignatureException"


def test_a_scope_of_the_other_service_is_refused():
    name, message = refusal(signed(signing_name="cleanrooms"))
    assert name == "InvalidSignatureException"
    assert "'cleanrooms-ml'" in message


@pytest.mark.parametrize("region", ["*", "us_east", "", "US-EAST-1"])
def test_a_region_that_is_none_is_refused(region):
    assert "region" in refusal(signed(region=region))[1]


@pytest.mark.parametrize("payload", ["UNSIGNED-PAYLOAD", "STREAMING-AWS4-HMAC-SHA256-PAYLOAD"])
def test_a_payload_outside_the_signature_is_refused(payload):
    request = signed(headers=[("X-Amz-Content-SHA256", payload)])
    assert refusal(request)[1].startswith(f"{payload} is not accepted")


def test_a_content_hash_must_be_the_bodys():
    right = sha256(b"{}").hexdigest()
    verified(signed("POST", body=b"{}", headers=[("X-Amz-Content-SHA256", right)]))
    wrong = signed("POST", body=b"{}", headers=[("X-Amz-Content-SHA256", sha256(b"").hexdigest())])
    assert "not the SHA-256 of the body" in refusal(wrong)[1]


def test_every_amz_header_must_be_signed():
    assert "'x-amz-target'" in refusal(with_header(signed(), "x-amz-target", "DeleteEverything"))[1]


def test_the_host_must_be_signed():
    request = signed()
    without = authorization(request).replace("SignedHeaders=host;", "SignedHeaders=")
    assert "'host'" in refusal(with_header(request, "authorization", without))[1]


def test_a_signed_header_must_be_sent():
    assert "was not sent" in refusal(with_header(signed(headers=[("x-amz-meta", "1")]), "x-amz-meta", None))[1]


@pytest.mark.parametrize("name", ["authorization", "host", "x-amz-date"])
def test_a_header_that_decides_must_not_be_doubled(name):
    request = signed()
    doubled = replace(request, headers=(*request.headers, (name, dict(request.headers)[name])))
    assert refusal(doubled) == ("IncompleteSignature", f"The header {name} must be sent once only.")


def test_an_unsigned_request_is_told_to_sign():
    name, message = refusal(with_header(signed(), "authorization", None))
    assert name == "MissingAuthenticationTokenException"
    assert "AWS4-HMAC-SHA256" in message


def test_a_presigned_url_is_refused_with_the_reason():
    assert "Presigned" in refusal(signed(signer=SigV4QueryAuth))[1]


def test_a_session_token_is_refused_with_the_reason():
    assert "Session tokens are not issued here" in refusal(signed(token="FwoGZXIvYXdzE"))[1]


SCOPE = "20260101/us-east-1/cleanrooms-ml/aws4_request, SignedHeaders=host, Signature="
MALFORMED = {
    "nothing": "",
    "another scheme": "Bearer abc",
    "another algorithm": f"AWS4-ECDSA-P256-SHA256 Credential=a/{SCOPE}{'0' * 64}",
    "the algorithm alone": "AWS4-HMAC-SHA256",
    "a part of it": "AWS4-HMAC-SHA256 Credential=a",
    "a short scope": f"AWS4-HMAC-SHA256 Credential=a/b/c, SignedHeaders=host, Signature={'0' * 64}",
    "no key": f"AWS4-HMAC-SHA256 Credential=/{SCOPE}{'0' * 64}",
    "a signature that is no number": f"AWS4-HMAC-SHA256 Credential=a/{SCOPE}{'é' * 64}",
    "one part three times": "AWS4-HMAC-SHA256 Signature=,Signature=,Signature=",
}


@pytest.mark.parametrize("header", MALFORMED.values(), ids=MALFORMED)
def test_a_malformed_authorization_header_is_incomplete(header):
    assert refusal(with_header(signed(), "authorization", header))[0] == "IncompleteSignature"


@pytest.mark.parametrize("date", [None, "", "yesterday", "20261320T000000Z", "2026-01-01T00:00:00Z"])
def test_a_missing_or_malformed_date_is_incomplete(date):
    assert refusal(with_header(signed(), "x-amz-date", date))[0] == "IncompleteSignature"


def test_signed_headers_must_be_sorted():
    request = signed()
    swapped = authorization(request).replace("host;x-amz-date", "x-amz-date;host")
    assert "sorted" in refusal(with_header(request, "authorization", swapped))[1]


@unhurried
@given(st.text("CredntialSghHsuA=/,;0:- ", max_size=60))
def test_hostile_authorization_headers_are_refused_not_failed_on(header):
    with pytest.raises(ApiError):
        verified(with_header(signed(), "authorization", "AWS4-HMAC-SHA256 " + header))


def test_the_claimed_service_is_read_where_it_can_be():
    assert claimed_signing_name(signed(signing_name="cleanrooms")) == "cleanrooms"
    assert claimed_signing_name(with_header(signed(), "authorization", "Bearer x")) is None


def test_secrets_stay_out_of_repr():
    assert KEY.secret_access_key not in repr(KEY)
