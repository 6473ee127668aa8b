"""Audience generation jobs: a seed ranks the users of somebody's audience model.

A start across accounts makes two resources for one execution, equal but for the account in their ARN. The
starter's copy shows the seed and, if the owner shares them, the metrics; the owner's copy shows the metrics and
nothing of the seed. Every change of status reaches both in one transaction.
"""

from __future__ import annotations

import traceback
from datetime import datetime
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection

from whiteroom.data.errors import DataError
from whiteroom.jobs.kinds import Failure, JobError, JobKind, Outcome, Work
from whiteroom.jobs.queue import Job
from whiteroom.rooms import access, artifacts, kinds, lifecycle, paging, tags
from whiteroom.rooms.configured_audience_models import reachable
from whiteroom.rooms.kinds import AUDIENCE_GENERATION_JOB, AUDIENCE_MODEL
from whiteroom.rooms.states import move
from whiteroom.store import resources
from whiteroom.store.resources import Missing, Resource, Scope
from whiteroom.wire.errors import validation
from whiteroom.wire.service import operation

if TYPE_CHECKING:
    from whiteroom.engines.lookalike import Lookalike, Ranking
    from whiteroom.rooms.room import Room
    from whiteroom.wire.service import Call

# The owner of the model sets these in motion; the account that brought the seed reads the rest.
OWNERS_FAILURES = ("MODEL_UNAVAILABLE",)
NEUTRAL_FAILURES = ("CANCELLED", "SEED_MATCH_BELOW_MINIMUM", "OUT_OF_MEMORY", "INTERNAL_ERROR", "STORAGE_FULL")

kinds.serve_get(AUDIENCE_GENERATION_JOB)


@operation("cleanroomsml", "StartAudienceGenerationJob", scope=access.own_account)
def start_audience_generation_job(call: Call, request: dict[str, Any]) -> dict[str, Any]:
    caller = call.caller.account
    _check_seed(call, request["seedAudience"])
    job_arn = AUDIENCE_GENERATION_JOB.new_arn(call.caller.region, caller)
    owner = access.account_of(request["configuredAudienceModelArn"])
    owners_arn = job_arn.replace(f":{caller}:", f":{owner}:", 1)
    facts = {"aws:principalaccount": caller, "aws:sourceaccount": caller}
    if "collaborationId" in request:
        facts["cleanrooms-ml:collaborationid"] = request["collaborationId"]
    configured = reachable(call, request["configuredAudienceModelArn"], job_arn=owners_arn, facts=facts)
    kinds.require_room_for_pending(
        call,
        AUDIENCE_GENERATION_JOB,
        "Pending audience generation jobs",
        call.context.limits.max_pending_generation_jobs,
    )
    shared = kinds.picked(request, "configuredAudienceModelArn", "collaborationId", "description")
    shared |= {"includeSeedInOutput": request.get("includeSeedInOutput", False), "startedBy": caller}
    own_tags, owner_tags = _tags(call, request, configured)
    _insert(
        call,
        job_arn,
        request["name"],
        configured,
        shared | {"seedAudience": request["seedAudience"]} | own_tags,
    )
    arns = [job_arn]
    if owner != caller:
        _insert(call, owners_arn, f"{caller}-{request['name']}", configured, shared | owner_tags)
        arns.append(owners_arn)
    payload = {
        "seedUri": request["seedAudience"]["dataSource"]["s3Uri"],
        "startedBy": caller,
        "owner": owner,
        "model": configured.body["audienceModelArn"],
        "includeSeed": shared["includeSeedInOutput"],
        **{k: configured.body[k] for k in ("minMatchingSeedSize", "audienceSizeConfig", "sharedAudienceMetrics")},
    }
    lifecycle.submit(call, CREATE.name, payload, *arns)
    return {"audienceGenerationJobArn": job_arn}


@operation("cleanroomsml", "ListAudienceGenerationJobs", scope=access.own_account)
def list_audience_generation_jobs(call: Call, request: dict[str, Any]) -> dict[str, Any]:
    rows, more = paging.page(
        call,
        request,
        AUDIENCE_GENERATION_JOB.name,
        parent=request.get("configuredAudienceModelArn"),
        collaboration=request.get("collaborationId"),
    )
    return {"audienceGenerationJobs": [AUDIENCE_GENERATION_JOB.entry(row) for row in rows], **more}


@operation("cleanroomsml", "DeleteAudienceGenerationJob", scope=access.own_account)
def delete_audience_generation_job(call: Call, request: dict[str, Any]) -> dict[str, Any]:
    """Either account may delete; both copies, the ranking and the exports' records go."""
    job = kinds.find(call, AUDIENCE_GENERATION_JOB, request["audienceGenerationJobArn"])
    if lifecycle.require_deletable(AUDIENCE_GENERATION_JOB.words, job):
        arns = copies(job)
        everyone = Scope.service(why="both copies of an execution are deleted together")
        for arn in arns:
            copy = resources.load(call.tx, everyone, AUDIENCE_GENERATION_JOB.name, arn)
            move(call.tx, copy, "DELETE_PENDING", now=call.now)
        lifecycle.submit(call, lifecycle.DELETE.name, {}, *arns)
    return {}


def copies(job: Resource) -> list[str]:
    """The ARNs of one execution: the starter's first, then the owner's where that is another account."""
    account = access.account_of(job.arn)
    accounts = dict.fromkeys((job.body["startedBy"], access.account_of(job.body["configuredAudienceModelArn"])))
    return [job.arn.replace(f":{account}:", f":{a}:", 1) for a in accounts]


def _check_seed(call: Call, seed: dict[str, Any]) -> None:
    access.require_own_role(call, seed["roleArn"])
    if ("dataSource" in seed) == ("sqlParameters" in seed):
        raise validation("seedAudience must have exactly one of dataSource and sqlParameters.")
    if "sqlParameters" in seed:
        raise validation(
            "A seed by sqlParameters is not served yet (docs/api-status.md). Write the seed as JSON Lines with the "
            "key user_id to S3 and pass seedAudience.dataSource."
        )
    if "sqlComputeConfiguration" in seed:
        raise validation("sqlComputeConfiguration goes with sqlParameters, not with dataSource.")
    access.require_own_location(call, seed["roleArn"], seed["dataSource"]["s3Uri"])


def _insert(call: Call, arn: str, name: str, configured: Resource, body: dict[str, Any]) -> None:
    kinds.create(
        call,
        AUDIENCE_GENERATION_JOB,
        name=name,
        body=body,
        status="CREATE_PENDING",
        parent=configured.arn,
        arn=arn,
        account=access.account_of(arn),
    )


def _tags(call: Call, request: dict[str, Any], configured: Resource) -> tuple[dict[str, Any], dict[str, Any]]:
    """The tags of the caller's and of the owner's copy: no account's tags land in another's (behaviour 1.8)."""
    requested = tags.of(request)
    inherits = configured.body.get("childResourceTagOnCreatePolicy") == "FROM_PARENT_RESOURCE"
    inherited = {"tags": configured.body["tags"]} if inherits and "tags" in configured.body else {}
    if configured.account != call.caller.account:
        return requested, inherited
    merged = inherited.get("tags", {}) | requested.get("tags", {})
    return ({"tags": merged} if merged else {}), {}


# --- the job -------------------------------------------------------------------------------------------


def generate(work: Work) -> Outcome:
    """Rank the model's users by the seed; keep the largest audience and the metrics."""
    from whiteroom.data.seeds import read_seed

    room: Room = work.context
    payload = work.job.payload
    limits = room.limits
    try:
        seed = read_seed(
            room.files.as_account(payload["startedBy"]),
            payload["seedUri"],
            min_ids=limits.min_seed_ids,
            max_ids=limits.max_seed_ids,
            max_bytes=limits.max_seed_bytes,
        )
    except DataError as error:
        raise JobError(error.status_code, error.message) from error
    work.progress(0.2, "seed read")
    ranking, users, artifact = _rank(room, work, seed)
    metrics = _metrics(ranking, payload["audienceSizeConfig"], users, payload["includeSeed"])

    def activate(tx: Connection, now: datetime) -> None:
        for copy in lifecycle.moved(tx, work.job):
            sees_metrics = copy.account == payload["owner"] or payload["sharedAudienceMetrics"] == ["ALL"]
            private = copy.private | {
                "artifact": artifact,
                "users": users,
                "sizes": payload["audienceSizeConfig"],
            }
            body = copy.body | ({"metrics": metrics} if sees_metrics else {})
            move(tx, copy, "ACTIVE", now=now, body=body, private=private)

    return activate


def _failure_for(copy: Resource, job: Job, failure: Failure) -> Failure:
    """What each account reads of a failure: its own affairs in full, the other's by name only."""
    starter, owner = job.payload["startedBy"], job.payload["owner"]
    if starter == owner or failure.status_code in NEUTRAL_FAILURES:
        return failure
    if failure.status_code in OWNERS_FAILURES:
        mine = copy.account == owner
        return failure if mine else Failure(failure.status_code, "The audience model cannot be used at present.")
    if copy.account == starter:
        return failure
    return Failure("SEED_REJECTED", "The seed cannot be used; the account that started the job sees why.")


CREATE = JobKind(
    name="audience-generation-job",
    started=lifecycle.started,
    run=generate,
    failed=lifecycle.failed(_failure_for),
)


def size_in_users(kind: str, value: int, users: int) -> int:
    """An audience size in users: `value` itself, or that percentage of the model's `users`, rounded down."""
    return value if kind == "ABSOLUTE" else max(1, users * value // 100)


def _rank(room: Room, work: Work, seed: list[str]) -> tuple[Ranking, int, dict[str, Any]]:
    payload = work.job.payload
    engine, artifact, opener = _model(room, work)
    work.progress(0.4, "model loaded")
    include_seed = payload["includeSeed"]
    sizes = payload["audienceSizeConfig"]
    largest = size_in_users(sizes["audienceSizeType"], max(sizes["audienceSizeBins"]), engine.n_users_)
    # An account that owns both sides has nothing to hide from itself.
    epsilon = room.limits.metrics_epsilon if payload["startedBy"] != payload["owner"] else 0
    least = max(room.limits.min_seed_ids, payload["minMatchingSeedSize"])
    check_matches(engine, seed, least=least, largest=0 if include_seed else largest, epsilon=epsilon)
    ranking = engine.rank(seed, top=room.limits.max_percentage_bin / 100, epsilon=epsilon or None)
    largest = min(largest, ranking.available(include_seed=include_seed))
    with artifacts.room_on_disk():
        artifacts.write_users(work.directory, ranking.audience(largest, include_seed=include_seed), opener)
    return ranking, engine.n_users_, artifact


def check_matches(engine: Lookalike, seed: list[str], *, least: int, largest: int, epsilon: float) -> None:
    """Whether enough users of the seed are known to the model, and enough others left.

    Parameters
    ----------
    least : users that must match: never fewer do when this returns.
    largest : users outside the seed that an audience may take, 0 if it takes the seed first. With noise so many are
        left when this returns, so that no size is cut short and tells how many matched.
    epsilon : of the noise on the number of matches; 0 for none.
    """
    from whiteroom.engines.lookalike import SeedError
    from whiteroom.engines.lookalike.privacy import Count

    try:
        matched = len(engine.match(seed)[0])
    except SeedError:
        matched = 0
    noise = engine.noise(seed, epsilon) if epsilon else None
    count = noise.matched(matched) if noise else Count(matched, matched, matched)
    if count.at_least < least:
        # How many did match is not said: the seed's account would learn who is in the owner's data.
        hint = f" A seed of which {least + 2 * noise.slack} are known always passes; fewer may not." if noise else ""
        raise JobError(
            "SEED_MATCH_BELOW_MINIMUM",
            f"Fewer than {least} users of the seed are known to the model{', or hardly more' if noise else ''}.{hint}",
        )
    if largest and engine.n_users_ - count.at_most < (largest if noise else 1):
        raise JobError(
            "SEED_COVERS_MODEL",
            "So many users of the model are in the seed that too few are left to rank. Use a smaller seed.",
        )


def _model(room: Room, work: Work) -> tuple[Lookalike, artifacts.Facts, artifacts.Opener]:
    """The audience model, and how to keep a ranking of its users: encrypted as the model is."""
    from whiteroom.engines.lookalike import Lookalike, LookalikeError

    payload = work.job.payload
    try:
        with room.database.read() as tx:
            model = resources.load(tx, Scope.of(payload["owner"]), AUDIENCE_MODEL.name, payload["model"])
        facts = model.private["artifact"]
        engine = Lookalike.load(artifacts.directory(room, facts), open=artifacts.opener(room, facts))
        return engine, *artifacts.new(work, model.body.get("kmsKeyArn"))
    except Missing as error:
        raise JobError("MODEL_UNAVAILABLE", "The audience model was deleted before the job began.") from error
    except (DataError, LookalikeError) as error:
        traceback.print_exc()  # to the job's log: it names the server's files, which are no caller's business
        raise JobError(
            "MODEL_UNAVAILABLE",
            f"The audience model's files cannot be read. The operator finds why in the log of job {work.job.id}.",
        ) from error


def _metrics(ranking: Ranking, sizes: dict[str, Any], users: int, include_seed: bool) -> dict[str, Any]:
    """`metrics` as the model has it: one relevance score for each bin, smallest first, and the recall."""
    bins = sorted(sizes["audienceSizeBins"])
    available = ranking.available(include_seed=include_seed)
    in_users = [min(size_in_users(sizes["audienceSizeType"], value, users), available) for value in bins]
    scores = ranking.relevance(in_users, include_seed=include_seed)
    return {
        "relevanceMetrics": [
            {
                "audienceSize": {"type": sizes["audienceSizeType"], "value": value},
                "score": round(float(score), 6),
            }
            for value, score in zip(bins, scores, strict=True)
        ],
        "recallMetric": round(ranking.recall, 6),
    }
