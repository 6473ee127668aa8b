"""Requests that no client library would send, or that ask for what may not be: a clear answer, nothing changed."""

from __future__ import annotations

import json
import threading
from collections import Counter
from typing import Any
from urllib.parse import quote

import pytest
import urllib3
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from botocore.exceptions import ClientError

from tests.e2e.conftest import Parties
from tests.population import dataset_request, put_seed
from tests.server import Account


def send(account: Account, method: str, path: str, body: bytes = b"", *, sign: bool = True) -> tuple[int, Any, str]:
    """Status, document and error type of a request made by hand."""
    request = AWSRequest(method, account.api_url + path, data=body, headers={"Content-Type": "application/json"})
    if sign:
        credentials = Credentials(account.access_key_id, account.secret_access_key)
        SigV4Auth(credentials, "cleanrooms-ml", account.region).add_auth(request)
    answer = urllib3.request(
        method, account.api_url + path, body=body, headers=dict(request.headers), retries=False, timeout=60
    )
    return answer.status, json.loads(answer.data or b"{}"), answer.headers.get("x-amzn-errortype", "")


def code_of(call: Any, **arguments: Any) -> tuple[str, str]:
    with pytest.raises(ClientError) as caught:
        call(**arguments)
    error = caught.value.response["Error"]
    return error["Code"], error["Message"]


def test_an_unsigned_request_is_refused_before_anything_else(parties: Parties) -> None:
    status, document, kind = send(parties.publisher, "GET", "/training-dataset", sign=False)
    assert status == 403 and kind.startswith("MissingAuthenticationToken")
    assert "sign" in document["message"].lower()


def test_what_is_not_served_says_so_and_names_the_page(parties: Parties) -> None:
    code, message = code_of(parties.publisher.client("cleanrooms").list_collaborations)
    assert code == "NotImplementedException"
    assert "docs/api-status.md" in message


def test_unknown_members_are_refused_by_name(parties: Parties) -> None:
    body = dataset_request(parties.publisher, "x", "clicks") | {"privacyBudget": 3}
    status, document, kind = send(parties.publisher, "POST", "/training-dataset", json.dumps(body).encode())
    assert (status, kind) == (400, "ValidationException")
    assert "privacyBudget" in document["message"]


def test_a_body_of_50_mb_is_refused_and_the_server_lives(parties: Parties) -> None:
    status, _, kind = send(parties.publisher, "POST", "/training-dataset", b" " * 50_000_000)
    assert status == 413 and kind.startswith("RequestEntityTooLarge")
    assert parties.publisher.ml.list_training_datasets()["trainingDatasets"]


def test_names_are_counted_in_characters(parties: Parties) -> None:
    request = dataset_request(parties.publisher, "n" * 64, "clicks")
    code, message = code_of(parties.publisher.ml.create_training_dataset, **request)
    assert code == "ValidationException" and "63" in message
    emoji = "🧪" * 63
    made = parties.publisher.ml.create_training_dataset(**dataset_request(parties.publisher, emoji, "clicks"))
    arn = made["trainingDatasetArn"]
    assert parties.publisher.ml.get_training_dataset(trainingDatasetArn=arn)["name"] == emoji
    parties.publisher.ml.delete_training_dataset(trainingDatasetArn=arn)


@pytest.mark.parametrize("value", ["0", "1000", "-1", "1.5", "abc", "", "1&maxResults=2"])
def test_max_results_is_1_to_100(parties: Parties, value: str) -> None:
    status, document, kind = send(parties.publisher, "GET", f"/training-dataset?maxResults={value}")
    assert (status, kind) == (400, "ValidationException")
    assert "maxResults" in document["message"]


def test_pages_survive_inserts_and_tokens_cannot_be_made_or_moved(parties: Parties) -> None:
    ml = parties.stranger.ml
    for n in range(5):
        ml.create_training_dataset(**dataset_request(parties.stranger, f"page-{n}", "t"))
    first = ml.list_training_datasets(maxResults=2)
    ml.create_training_dataset(**dataset_request(parties.stranger, "page-between", "t"))
    rest = ml.get_paginator("list_training_datasets").paginate(PaginationConfig={"PageSize": 2, "StartingToken": None})
    everything = [d["name"] for page in rest for d in page["trainingDatasets"]]
    second = ml.list_training_datasets(maxResults=2, nextToken=first["nextToken"])
    third = ml.list_training_datasets(maxResults=2, nextToken=second["nextToken"])
    seen = [d["name"] for page in (first, second, third) for d in page["trainingDatasets"]]
    assert seen == [f"page-{n}" for n in (4, 3, 2, 1, 0)]
    assert everything == ["page-between", *seen]
    assert "nextToken" not in third

    token = first["nextToken"]
    forged = ["x", "AAAA", token[:-2], token[:5] + ("A" if token[5] != "A" else "B") + token[6:], token + "AAAA", "é"]
    for bad in forged:
        assert code_of(ml.list_training_datasets, nextToken=bad)[0] == "ValidationException"
    assert code_of(ml.list_audience_models, nextToken=token)[0] == "ValidationException"
    assert code_of(parties.publisher.ml.list_training_datasets, nextToken=token)[0] == "ValidationException"


def test_a_region_of_its_own_holds_resources_of_its_own(parties: Parties) -> None:
    frankfurt = parties.stranger.client("cleanroomsml", region_name="eu-central-1")
    assert not frankfurt.list_training_datasets()["trainingDatasets"]
    request = dataset_request(parties.stranger, "same name", "t")
    here = parties.stranger.ml.create_training_dataset(**request)["trainingDatasetArn"]
    there = frankfurt.create_training_dataset(**request)["trainingDatasetArn"]
    assert ":eu-central-1:" in there
    assert code_of(frankfurt.get_training_dataset, trainingDatasetArn=here)[0] == "ResourceNotFoundException"


def test_foreign_and_missing_resources_look_alike(parties: Parties) -> None:
    dataset = parties.publisher.ml.list_training_datasets()["trainingDatasets"][0]["trainingDatasetArn"]
    missing = dataset[:-4] + "0000"
    ml = parties.stranger.ml
    for call, member in (
        (ml.get_training_dataset, "trainingDatasetArn"),
        (ml.delete_training_dataset, "trainingDatasetArn"),
        (ml.list_tags_for_resource, "resourceArn"),
    ):
        foreign, absent = code_of(call, **{member: dataset}), code_of(call, **{member: missing})
        assert foreign[0] == "ResourceNotFoundException"
        assert foreign[1].replace(dataset, "ARN") == absent[1].replace(missing, "ARN")
    assert code_of(ml.create_audience_model, name="m", trainingDatasetArn=dataset)[0] == "ResourceNotFoundException"
    status, _, kind = send(parties.stranger, "GET", "/training-dataset/" + quote(dataset, safe="") + "%2F..")
    assert (status, kind) in ((400, "ValidationException"), (404, "ResourceNotFoundException"))


def test_roles_keys_and_catalogs_of_another_account_are_refused(parties: Parties) -> None:
    ml = parties.stranger.ml
    request = dataset_request(parties.stranger, "r", "t") | {"roleArn": parties.publisher.role}
    code, message = code_of(ml.create_training_dataset, **request)
    assert code == "AccessDeniedException" and parties.stranger.id in message
    request = dataset_request(parties.stranger, "r", "t")
    request["trainingData"][0]["inputConfig"]["dataSource"]["glueDataSource"]["catalogId"] = parties.publisher.id
    assert code_of(ml.create_training_dataset, **request)[0] == "AccessDeniedException"
    dataset = ml.create_training_dataset(**dataset_request(parties.stranger, "key", "t"))["trainingDatasetArn"]
    key = f"arn:aws:kms:us-east-1:{parties.publisher.id}:key/1"
    call = ml.create_audience_model
    assert code_of(call, name="k", trainingDatasetArn=dataset, kmsKeyArn=key)[0] == "AccessDeniedException"


def test_a_bucket_of_another_account_and_a_missing_one_look_alike(parties: Parties) -> None:
    messages = []
    for bucket in ("advertiser-seeds", "nobody-has-this"):
        code, message = code_of(
            parties.publisher.ml.create_configured_audience_model,
            name="out",
            audienceModelArn=parties.model_arn,
            outputConfig={
                "destination": {"s3Destination": {"s3Uri": f"s3://{bucket}/x"}},
                "roleArn": parties.publisher.role,
            },
            sharedAudienceMetrics=["ALL"],
        )
        assert code == "AccessDeniedException"
        messages.append(message.replace(bucket, "BUCKET"))
    assert messages[0] == messages[1]


@pytest.mark.parametrize(
    ("seed", "says"),
    [
        ({}, "exactly one"),
        ({"dataSource": {"s3Uri": "s3://advertiser-seeds/../x"}}, "segment"),
        ({"dataSource": {"s3Uri": "s3://publisher-data/clicks"}}, "no access"),
        ({"sqlParameters": {"queryString": "SELECT 1"}}, "docs/api-status.md"),
        (
            {
                "dataSource": {"s3Uri": "s3://advertiser-seeds/x"},
                "sqlComputeConfiguration": {"worker": {"type": "CR.1X", "number": 16}},
            },
            "sqlParameters",
        ),
    ],
)
def test_a_seed_that_cannot_be_read_is_refused_at_the_start(parties: Parties, seed: Any, says: str) -> None:
    code, message = code_of(
        parties.advertiser.ml.start_audience_generation_job,
        name="bad seed",
        configuredAudienceModelArn=parties.configured_arn,
        seedAudience=seed | {"roleArn": parties.advertiser.role},
    )
    assert code in ("ValidationException", "AccessDeniedException") and says in message


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ({"audienceSizeType": "PERCENTAGE", "audienceSizeBins": [21]}, "1 to 20"),
        ({"audienceSizeType": "PERCENTAGE", "audienceSizeBins": [5, 5]}, "twice"),
        ({"audienceSizeType": "ABSOLUTE", "audienceSizeBins": [14]}, "15 to 300"),
        ({"audienceSizeType": "ABSOLUTE", "audienceSizeBins": [301]}, "15 to 300"),
    ],
)
def test_bins_outside_the_limits_are_refused(parties: Parties, config: Any, says: str) -> None:
    code, message = code_of(
        parties.publisher.ml.update_configured_audience_model,
        configuredAudienceModelArn=parties.configured_arn,
        audienceSizeConfig=config,
    )
    assert code == "ValidationException" and says in message


def test_policies_are_put_only_over_what_the_caller_believes_is_there(parties: Parties) -> None:
    ml, arn = parties.publisher.ml, {"configuredAudienceModelArn": parties.configured_arn}
    present = ml.get_configured_audience_model_policy(**arn)
    text, digest = present["configuredAudienceModelPolicy"], present["policyHash"]
    put = ml.put_configured_audience_model_policy
    same = arn | {"configuredAudienceModelPolicy": text}
    assert put(**same, previousPolicyHash=digest, policyExistenceCondition="POLICY_MUST_EXIST")["policyHash"] == digest
    assert code_of(put, **same, previousPolicyHash="0" * 64)[0] == "ValidationException"
    assert code_of(put, **same, policyExistenceCondition="POLICY_MUST_NOT_EXIST")[0] == "ValidationException"
    assert code_of(put, **arn, configuredAudienceModelPolicy="{}")[0] == "ValidationException"
    ml.delete_configured_audience_model_policy(**arn)
    assert code_of(ml.get_configured_audience_model_policy, **arn)[0] == "ResourceNotFoundException"
    assert code_of(put, **same, policyExistenceCondition="POLICY_MUST_EXIST")[0] == "ValidationException"
    put(**same, policyExistenceCondition="POLICY_MUST_NOT_EXIST")


def test_of_many_creates_with_one_name_one_succeeds(parties: Parties) -> None:
    outcomes: list[str] = []

    def create() -> None:
        try:
            parties.stranger.client("cleanroomsml").create_training_dataset(
                **dataset_request(parties.stranger, "one name", "t")
            )
            outcomes.append("created")
        except ClientError as error:
            outcomes.append(error.response["Error"]["Code"])

    threads = [threading.Thread(target=create) for _ in range(12)]
    [t.start() for t in threads]
    [t.join() for t in threads]
    assert Counter(outcomes) == {"created": 1, "ConflictException": 11}


def test_tags_have_their_limits(parties: Parties) -> None:
    ml = parties.stranger.ml
    made = ml.create_training_dataset(**dataset_request(parties.stranger, "tagged", "t"), tags={"a": "1"})
    arn = made["trainingDatasetArn"]
    resource = {"resourceArn": arn}
    ml.tag_resource(**resource, tags={f"k{n}": "v" for n in range(49)})
    assert len(ml.list_tags_for_resource(**resource)["tags"]) == 50
    assert code_of(ml.tag_resource, **resource, tags={"one more": "v"})[0] == "ValidationException"
    assert code_of(ml.tag_resource, **resource, tags={"aws:x": "v"})[0] == "ValidationException"
    ml.untag_resource(**resource, tagKeys=["a", "k1", "never there"])
    assert len(ml.list_tags_for_resource(**resource)["tags"]) == 48
    assert len(ml.get_training_dataset(trainingDatasetArn=arn)["tags"]) == 48


def test_a_schema_needs_its_three_columns_and_at_most_ten_features(parties: Parties) -> None:
    def with_schema(*columns: tuple[str, str]) -> tuple[str, str]:
        schema = [{"columnName": name, "columnTypes": [kind]} for name, kind in columns]
        return code_of(
            parties.stranger.ml.create_training_dataset, **dataset_request(parties.stranger, "s", "t", schema)
        )

    ids = (("u", "USER_ID"), ("i", "ITEM_ID"), ("t", "TIMESTAMP"))
    assert "TIMESTAMP" in with_schema(*ids[:2])[1]
    assert "twice" in with_schema(*ids, ("U", "CATEGORICAL_FEATURE"))[1]
    assert "at most 10" in with_schema(*ids, *((f"f{n}", "NUMERICAL_FEATURE") for n in range(11)))[1]


def test_a_denial_is_recorded_for_the_owner_of_the_data(parties: Parties) -> None:
    strangers_seed = put_seed(parties.stranger, "stranger-data", "denied.jsonl", ["a"])
    code_of(
        parties.stranger.ml.start_audience_generation_job,
        name="denied",
        configuredAudienceModelArn=parties.configured_arn,
        seedAudience={"dataSource": {"s3Uri": strangers_seed}, "roleArn": parties.stranger.role},
    )
    shown = json.loads(parties.server.cli("audit", "--account", parties.publisher.id, "--json"))
    assert shown[0]["resource"] == parties.configured_arn
    assert (shown[0]["caller"], shown[0]["decision"]) == (parties.stranger.id, "denied")
    assert shown[0]["operation"] == "cleanroomsml:StartAudienceGenerationJob"
    assert parties.stranger.id in shown[0]["reason"]
