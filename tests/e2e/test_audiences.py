"""From interactions to an exported audience, between two accounts, through boto3 on a real server."""

from __future__ import annotations

import re
import time
from dataclasses import replace
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.e2e.conftest import Parties, refused
from tests.population import allow, configure, export, exported_ids, generate, put_seed, start
from tests.server import Account, wait

NAME = "spring " + "🌸" * 56  # as long as a name may be; the owner's view of it is longer


@pytest.fixture(scope="module")
def job(parties: Parties) -> dict[str, Any]:
    done = generate(
        parties.advertiser, NAME, parties.configured_arn, parties.seed_uri, tags={"team": "ads"}, description="d"
    )
    assert done["status"] == "ACTIVE", done
    return done


def owners_view(parties: Parties, job: dict[str, Any]) -> dict[str, Any]:
    arn = job["audienceGenerationJobArn"].replace(parties.advertiser.id, parties.publisher.id)
    document: dict[str, Any] = parties.publisher.ml.get_audience_generation_job(audienceGenerationJobArn=arn)
    return document


def test_the_audience_holds_the_users_who_truly_belong_to_it(parties: Parties, job: dict[str, Any]) -> None:
    done = export(parties.publisher, "top-20", owners_view(parties, job)["audienceGenerationJobArn"], "PERCENTAGE", 20)
    assert done["status"] == "ACTIVE", done
    ids = exported_ids(parties.publisher, done["outputLocation"])
    assert len(ids) == len(set(ids)) == 300
    hidden = set(parties.population.audience) - set(parties.seed_ids)
    assert not set(ids) & set(parties.seed_ids), "includeSeedInOutput defaults to false"
    assert len(hidden & set(ids)) / len(hidden) > 0.85  # random: 0.2
    assert len(hidden & set(ids[:100])) > 90, "best first"


def test_metrics_are_those_of_the_service_model(parties: Parties, job: dict[str, Any]) -> None:
    sizes = [m["audienceSize"] for m in job["metrics"]["relevanceMetrics"]]
    assert sizes == [{"type": "PERCENTAGE", "value": value} for value in range(1, 21)]
    scores = [m["score"] for m in job["metrics"]["relevanceMetrics"]]
    assert scores == sorted(scores, reverse=True)
    assert scores[0] > 0 and all(-1 <= s <= 1 for s in scores)
    assert job["metrics"]["recallMetric"] > 0.8  # random: 0.2


def test_one_execution_has_two_arns_that_differ_in_the_account(parties: Parties, job: dict[str, Any]) -> None:
    mine, theirs = job, owners_view(parties, job)
    assert mine["name"] == NAME and theirs["name"] == f"{parties.advertiser.id}-{NAME}"
    assert mine["startedBy"] == theirs["startedBy"] == parties.advertiser.id
    assert mine["metrics"] == theirs["metrics"]
    assert mine["description"] == theirs["description"] == "d"
    for account, arn in (
        (parties.publisher, mine["audienceGenerationJobArn"]),
        (parties.advertiser, theirs["audienceGenerationJobArn"]),
        (parties.stranger, mine["audienceGenerationJobArn"]),
    ):
        call = account.ml.get_audience_generation_job
        refused("ResourceNotFoundException", call, audienceGenerationJobArn=arn)
    listed = [
        [j["audienceGenerationJobArn"] for j in a.ml.list_audience_generation_jobs()["audienceGenerationJobs"]]
        for a in (parties.advertiser, parties.publisher, parties.stranger)
    ]
    assert mine["audienceGenerationJobArn"] in listed[0] and theirs["audienceGenerationJobArn"] in listed[1]
    assert not listed[2]


def test_only_the_starter_sees_the_seed_and_no_account_gets_the_others_tags(
    parties: Parties, job: dict[str, Any]
) -> None:
    theirs = owners_view(parties, job)
    assert job["seedAudience"]["dataSource"]["s3Uri"] == parties.seed_uri
    assert "seedAudience" not in theirs
    assert "advertiser-seeds" not in str(theirs)
    assert job["tags"] == {"team": "ads"} and "tags" not in theirs


def test_an_export_by_the_seed_provider_lands_with_the_owner_who_alone_sees_where(
    parties: Parties, job: dict[str, Any]
) -> None:
    mine = export(parties.advertiser, "by advertiser 🎯/..", job["audienceGenerationJobArn"], "PERCENTAGE", 10)
    assert mine["status"] == "ACTIVE" and "outputLocation" not in mine
    listed = parties.publisher.ml.list_audience_export_jobs(
        audienceGenerationJobArn=owners_view(parties, job)["audienceGenerationJobArn"]
    )["audienceExportJobs"]
    theirs = next(j for j in listed if j["name"] == f"{parties.advertiser.id}-by advertiser 🎯/..")
    job_id = job["audienceGenerationJobArn"].rsplit("/", 1)[1]
    assert re.fullmatch(rf"s3://publisher-out/audiences/{job_id}/[A-Za-z0-9._-]+", theirs["outputLocation"])
    assert len(exported_ids(parties.publisher, theirs["outputLocation"])) == 150


def test_exports_of_two_accounts_never_share_a_place(parties: Parties, job: dict[str, Any]) -> None:
    theirs = owners_view(parties, job)["audienceGenerationJobArn"]
    same = f"{parties.advertiser.id}-clash"  # what the owner's view calls the advertiser's export
    mine = export(parties.publisher, same, theirs, "PERCENTAGE", 4)
    export(parties.advertiser, "clash", job["audienceGenerationJobArn"], "PERCENTAGE", 8)
    listed = parties.publisher.ml.list_audience_export_jobs(audienceGenerationJobArn=theirs)["audienceExportJobs"]
    places = {j["outputLocation"]: j["audienceSize"]["value"] for j in listed if j["name"] == same}
    assert sorted(places.values()) == [4, 8]
    assert len(exported_ids(parties.publisher, mine["outputLocation"])) == 60


def test_an_export_must_name_one_of_the_bins(parties: Parties, job: dict[str, Any]) -> None:
    for kind, value in (("PERCENTAGE", 21), ("ABSOLUTE", 10)):
        message = refused(
            "ValidationException",
            parties.advertiser.ml.start_audience_export_job,
            name="x",
            audienceGenerationJobArn=job["audienceGenerationJobArn"],
            audienceSize={"type": kind, "value": value},
        )
        assert "PERCENTAGE 1, 2, 3" in message


def test_an_audience_too_small_to_leave_does_not_say_how_small(parties: Parties) -> None:
    """Without noise, sizes are cut to the users that are left."""
    seed = put_seed(parties.publisher, "publisher-data", "seeds/nearly-all.jsonl", parties.population.users[:-11])
    job = generate(parties.publisher, "nearly all", parties.configured_arn, seed)
    assert job["status"] == "ACTIVE", job
    refusal = export(parties.publisher, "too-small", job["audienceGenerationJobArn"], "PERCENTAGE", 20)
    assert refusal["statusDetails"]["statusCode"] == "AUDIENCE_SIZE_BELOW_MINIMUM"
    assert re.findall("[0-9]+", refusal["statusDetails"]["message"]) == ["25"]  # the setting


def test_seed_users_come_first_when_they_are_included(parties: Parties) -> None:
    done = generate(parties.publisher, "own", parties.configured_arn, own_seed(parties), includeSeedInOutput=True)
    assert done["includeSeedInOutput"] is True and done["status"] == "ACTIVE", done
    exported = export(parties.publisher, "own", done["audienceGenerationJobArn"], "PERCENTAGE", 5)
    ids = exported_ids(parties.publisher, exported["outputLocation"])
    assert len(ids) == 75 and set(ids[:60]) == set(parties.seed_ids)


def own_seed(parties: Parties) -> str:
    return put_seed(parties.publisher, "publisher-data", "seeds/own.jsonl", parties.seed_ids)


def test_metrics_stay_with_the_owner_when_they_are_not_shared(parties: Parties) -> None:
    configured = configure(
        parties.publisher,
        "secretive",
        parties.model_arn,
        "s3://publisher-out/secretive",
        sharedAudienceMetrics=["NONE"],
        audienceSizeConfig={"audienceSizeType": "ABSOLUTE", "audienceSizeBins": [300, 50]},
        tags={"cost": "7"},
        childResourceTagOnCreatePolicy="FROM_PARENT_RESOURCE",
    )
    allow(parties.publisher, configured, parties.advertiser.id)
    mine = generate(parties.advertiser, "secretive", configured, parties.seed_uri, tags={"mine": "1"})
    theirs = owners_view(parties, mine)
    assert mine["status"] == "ACTIVE" and "metrics" not in mine
    assert [m["audienceSize"]["value"] for m in theirs["metrics"]["relevanceMetrics"]] == [50, 300]
    assert mine["tags"] == {"mine": "1"} and theirs["tags"] == {"cost": "7"}


def test_a_start_across_accounts_needs_the_policy_and_its_conditions(parties: Parties) -> None:
    configured = configure(parties.publisher, "conditional", parties.model_arn, "s3://publisher-out/conditional")
    room, other = "11111111-2222-3333-4444-555555555555", "99999999-2222-3333-4444-555555555555"

    def begin(account: Account, seed_uri: str, **options: str) -> str:
        return start(account, f"try-{len(options)}", configured, seed_uri, **options)

    call: Any = begin
    unknown = configured[:-4] + "0000"
    absent = refused("AccessDeniedException", start, account=parties.advertiser, name="n", configured_arn=unknown,
                     seed_uri=parties.seed_uri)  # fmt: skip
    denied = refused("AccessDeniedException", call, account=parties.advertiser, seed_uri=parties.seed_uri)
    assert absent.replace(unknown, "ARN") == denied.replace(configured, "ARN"), "a denial does not tell what exists"

    allow(
        parties.publisher,
        configured,
        parties.advertiser.id,
        condition={"StringEquals": {"cleanrooms-ml:CollaborationId": room}},
    )
    refused("AccessDeniedException", call, account=parties.advertiser, seed_uri=parties.seed_uri)
    refused("AccessDeniedException", call, account=parties.advertiser, seed_uri=parties.seed_uri, collaborationId=other)
    strangers_seed = put_seed(parties.stranger, "stranger-data", "seed.jsonl", parties.seed_ids)
    refused("AccessDeniedException", call, account=parties.stranger, seed_uri=strangers_seed, collaborationId=room)
    abroad = replace(parties.advertiser, region="eu-west-1")
    refused("AccessDeniedException", call, account=abroad, seed_uri=parties.seed_uri, collaborationId=room)
    arn = begin(parties.advertiser, parties.seed_uri, collaborationId=room)
    assert wait(parties.advertiser.ml.get_audience_generation_job, audienceGenerationJobArn=arn)["status"] == "ACTIVE"
    by_room = parties.publisher.ml.list_audience_generation_jobs(collaborationId=room)["audienceGenerationJobs"]
    assert [j["audienceGenerationJobArn"].rsplit("/")[1] for j in by_room] == [arn.rsplit("/")[1]]
    assert not parties.publisher.ml.list_audience_generation_jobs(collaborationId=other)["audienceGenerationJobs"]


def test_deletion_follows_the_dependencies_and_either_account_may_delete_a_job(parties: Parties) -> None:
    publisher = parties.publisher.ml
    configured = configure(parties.publisher, "short-lived", parties.model_arn, "s3://publisher-out/short-lived")
    allow(parties.publisher, configured, parties.advertiser.id)
    mine = generate(parties.advertiser, "short-lived", configured, parties.seed_uri)
    dataset = publisher.get_audience_model(audienceModelArn=parties.model_arn)["trainingDatasetArn"]
    refused("ConflictException", publisher.delete_training_dataset, trainingDatasetArn=dataset)
    refused("ConflictException", publisher.delete_audience_model, audienceModelArn=parties.model_arn)
    call = publisher.delete_configured_audience_model
    refused("ConflictException", call, configuredAudienceModelArn=configured)

    theirs = owners_view(parties, mine)["audienceGenerationJobArn"]
    export(parties.advertiser, "e", mine["audienceGenerationJobArn"], "PERCENTAGE", 3)
    rankings = set((parties.server.data_dir / "artifacts").rglob("audience.arrow"))
    publisher.delete_audience_generation_job(audienceGenerationJobArn=theirs)
    gone(parties.publisher.ml.get_audience_generation_job, audienceGenerationJobArn=theirs)
    gone(parties.advertiser.ml.get_audience_generation_job, audienceGenerationJobArn=mine["audienceGenerationJobArn"])
    assert not parties.advertiser.ml.list_audience_export_jobs(
        audienceGenerationJobArn=mine["audienceGenerationJobArn"]
    )["audienceExportJobs"]
    publisher.delete_configured_audience_model(configuredAudienceModelArn=configured)
    assert len(rankings - set((parties.server.data_dir / "artifacts").rglob("audience.arrow"))) == 1


def gone(get: Any, **arguments: str) -> None:
    """The resource may show DELETE_PENDING and DELETE_IN_PROGRESS, then nothing."""
    for _ in range(400):
        try:
            assert get(**arguments)["status"] in ("DELETE_PENDING", "DELETE_IN_PROGRESS")
        except ClientError as error:
            assert error.response["Error"]["Code"] == "ResourceNotFoundException"
            return
        time.sleep(0.05)
    raise AssertionError(f"still there: {arguments}")
