"""AWS Signature Version 4, the verifying side. Knows no operations, and keys only through `lookup`.

The canonical form is the one botocore signs (botocore.auth.SigV4Auth): the path percent-encoded once more,
the query's pairs sorted as they were sent, header values trimmed. On top of it come the checks that only
a server can make: the body is hashed here and never taken on trust, every `x-amz-*` header must be signed,
the time must be near, and the credential scope must name this day and this service.
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import lru_cache
from hashlib import sha256
from urllib.parse import quote

from whiteroom.wire.errors import ApiError

ALGORITHM = "AWS4-HMAC-SHA256"
WINDOW = timedelta(minutes=5)
SINGLE = ("authorization", "host", "x-amz-content-sha256", "x-amz-date", "x-amz-security-token")
REGION = re.compile(r"[a-z]{2,8}(-[a-z]{2,16}){1,3}-[0-9]{1,2}")
SPACES = re.compile(r"\s+", re.ASCII)
# Bounded: without, a header that repeats "Credential=" would take time by the square of its length.
CLAIM = re.compile(r"Credential=[^/,]{1,128}/[0-9]{8}/[^/,]{1,64}/([a-z-]{1,64})/")
NOBODY = "no key has this secret: it takes as long to refuse an unknown key as a wrong signature"


@dataclass(frozen=True)
class HttpRequest:
    """A request as it came over the wire: path and query not decoded, header names in lower case.

    The strings hold one character (U+0000 to U+00FF) for each byte that was sent.
    """

    method: str
    raw_path: str
    query: str
    headers: tuple[tuple[str, str], ...]
    body: bytes


@dataclass(frozen=True)
class Credential:
    account: str
    access_key_id: str
    secret_access_key: str = field(repr=False)


@dataclass(frozen=True)
class Caller:
    """Who signed the request, and for which region."""

    account: str
    access_key_id: str
    region: str


@dataclass(frozen=True)
class Authorization:
    """The parts of an Authorization header."""

    access_key_id: str
    date: str
    region: str
    signing_name: str
    signed_headers: tuple[str, ...]
    signature: str


def verify(
    request: HttpRequest,
    lookup: Callable[[str], Credential | None],
    *,
    signing_name: str,
    now: datetime,
) -> Caller:
    """Check the signature and say who made it.

    Raises ApiError: MissingAuthenticationTokenException, IncompleteSignature (it cannot be read, or leaves
    something out), InvalidSignatureException (wrong time, scope or body hash) or
    UnrecognizedClientException (an unknown key and a wrong signature alike).
    """
    headers = _by_name(request)
    claim = _authorization(headers, request.query)
    amz_date = _check_time(headers, claim, now)
    _check_scope(claim, signing_name)
    _check_signed_headers(headers, claim)
    body_hash = _check_body(headers, request.body)

    credential = lookup(claim.access_key_id)
    key = _signing_key(
        credential.secret_access_key if credential else NOBODY, claim.date, claim.region, claim.signing_name
    )
    scope = f"{claim.date}/{claim.region}/{claim.signing_name}/aws4_request"
    canonical = sha256(_canonical(request, headers, claim.signed_headers, body_hash)).hexdigest()
    expected = _hmac(key, f"{ALGORITHM}\n{amz_date}\n{scope}\n{canonical}").hex()
    if not hmac.compare_digest(expected, claim.signature) or credential is None:
        raise ApiError(
            "UnrecognizedClientException",
            "The access key is unknown here, or its secret did not make this signature over this request.",
        )
    return Caller(credential.account, credential.access_key_id, claim.region)


def claimed_signing_name(request: HttpRequest) -> str | None:
    """The service in the request's credential scope, unverified; None when it cannot be read."""
    match = CLAIM.search(dict(request.headers).get("authorization", ""))
    return match and match[1]


def _by_name(request: HttpRequest) -> dict[str, list[str]]:
    headers: dict[str, list[str]] = {}
    for name, value in request.headers:
        headers.setdefault(name, []).append(value)
    for name in SINGLE:
        if len(headers.get(name, ())) > 1:
            raise ApiError("IncompleteSignature", f"The header {name} must be sent once only.")
    return headers


def _authorization(headers: Mapping[str, list[str]], query: str) -> Authorization:
    if "x-amz-signature=" in query.lower() or "x-amz-algorithm=" in query.lower():
        raise ApiError(
            "IncompleteSignature",
            "Presigned requests (the signature in the query string) are not accepted;"
            " sign with the Authorization header.",
        )
    if "authorization" not in headers:
        raise ApiError(
            "MissingAuthenticationTokenException",
            f"The request is not signed. Sign it with {ALGORITHM} in the Authorization header.",
        )
    algorithm, _, rest = headers["authorization"][0].strip().partition(" ")
    if algorithm != ALGORITHM:
        raise ApiError("IncompleteSignature", f"The Authorization header must begin with {ALGORITHM}.")
    pairs = [part.strip().partition("=") for part in rest.split(",")]
    parts = {name: value for name, _, value in pairs}
    if len(pairs) != 3 or set(parts) != {"Credential", "SignedHeaders", "Signature"}:
        raise ApiError(
            "IncompleteSignature",
            "The Authorization header must hold Credential, SignedHeaders and Signature, each once.",
        )
    scope = parts["Credential"].split("/")
    if len(scope) != 5 or scope[4] != "aws4_request" or not 1 <= len(scope[0]) <= 128:
        raise ApiError(
            "IncompleteSignature",
            "Credential must be of the form ACCESS_KEY_ID/YYYYMMDD/REGION/SERVICE/aws4_request.",
        )
    if not re.fullmatch(r"[0-9a-f]{64}", parts["Signature"]):
        raise ApiError("IncompleteSignature", "Signature must be 64 lower-case hexadecimal digits.")
    signed = tuple(parts["SignedHeaders"].split(";"))
    return Authorization(scope[0], scope[1], scope[2], scope[3], signed, parts["Signature"])


def _check_time(headers: Mapping[str, list[str]], claim: Authorization, now: datetime) -> str:
    amz_date = headers.get("x-amz-date", [""])[0]
    try:
        if not re.fullmatch(r"[0-9]{8}T[0-9]{6}Z", amz_date):
            raise ValueError
        signed_at = datetime.fromisoformat(amz_date)
    except ValueError:
        raise ApiError(
            "IncompleteSignature", "The header X-Amz-Date must be sent as YYYYMMDDTHHMMSSZ in UTC."
        ) from None
    if claim.date != amz_date[:8]:
        raise ApiError("InvalidSignatureException", "The date in Credential is not the date of X-Amz-Date.")
    if abs(now - signed_at) > WINDOW:
        verb = "expired" if signed_at < now else "not yet current"
        raise ApiError(
            "InvalidSignatureException",
            f"Signature {verb}: it was made at {amz_date}, and the server's time is {now:%Y%m%dT%H%M%SZ}."
            " They may differ by 5 minutes.",
        )
    return amz_date


def _check_scope(claim: Authorization, signing_name: str) -> None:
    if claim.signing_name != signing_name:
        message = f"Credential should be scoped to the service {signing_name!r}."
        raise ApiError("InvalidSignatureException", message)
    if not REGION.fullmatch(claim.region):
        raise ApiError("InvalidSignatureException", "Credential should be scoped to a region such as us-east-1.")


def _check_signed_headers(headers: Mapping[str, list[str]], claim: Authorization) -> None:
    signed = set(claim.signed_headers)
    if list(claim.signed_headers) != sorted(signed):
        raise ApiError("IncompleteSignature", "SignedHeaders must be sorted and name each header once.")
    if absent := sorted(signed - set(headers)):
        raise ApiError("IncompleteSignature", f"SignedHeaders names {absent[0][:100]!r}, which was not sent.")
    must = {"host"} | {name for name in headers if name.startswith("x-amz-")}
    if unsigned := sorted(must - signed):
        raise ApiError("IncompleteSignature", f"The header {unsigned[0][:100]!r} must be signed.")
    if "x-amz-security-token" in headers:
        raise ApiError(
            "UnrecognizedClientException",
            "Session tokens are not issued here; sign with an access key alone (no X-Amz-Security-Token).",
        )


def _check_body(headers: Mapping[str, list[str]], body: bytes) -> str:
    body_hash = sha256(body).hexdigest()
    sent = headers.get("x-amz-content-sha256", [body_hash])[0]
    if sent.startswith(("UNSIGNED-PAYLOAD", "STREAMING-")):
        raise ApiError(
            "InvalidSignatureException",
            f"{sent[:64]} is not accepted: the signature must cover the body. Turn payload signing on.",
        )
    if sent != body_hash:
        raise ApiError("InvalidSignatureException", "X-Amz-Content-SHA256 is not the SHA-256 of the body.")
    return body_hash


def _canonical(
    request: HttpRequest, headers: Mapping[str, list[str]], signed: tuple[str, ...], body_hash: str
) -> bytes:
    pairs = sorted(pair.partition("=")[::2] for pair in request.query.split("&")) if request.query else []
    lines = [
        request.method,
        quote(request.raw_path, safe="/~", encoding="latin-1"),
        "&".join(f"{name}={value}" for name, value in pairs),
        *(f"{name}:{','.join(SPACES.sub(' ', v).strip(' ') for v in headers[name])}" for name in signed),
        "",
        ";".join(signed),
        body_hash,
    ]
    return "\n".join(lines).encode("latin-1")


@lru_cache(maxsize=1024)
def _signing_key(secret: str, date: str, region: str, signing_name: str) -> bytes:
    key = _hmac(f"AWS4{secret}".encode(), date)
    for part in (region, signing_name, "aws4_request"):
        key = _hmac(key, part)
    return key


def _hmac(key: bytes, message: str) -> bytes:
    return hmac.digest(key, message.encode(), "sha256")
