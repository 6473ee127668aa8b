"""Configured audience models: what others may ask of an audience model, and the policy that lets them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from whiteroom.rooms import access, kinds, policies, tags
from whiteroom.rooms.kinds import AUDIENCE_GENERATION_JOB, AUDIENCE_MODEL, CONFIGURED_AUDIENCE_MODEL
from whiteroom.store import accounts, audit, resources
from whiteroom.store.resources import Missing, Resource, Scope
from whiteroom.wire.errors import conflict, not_found, validation
from whiteroom.wire.service import operation

if TYPE_CHECKING:
    from whiteroom.config import Limits
    from whiteroom.wire.service import Call

DEFAULT_MATCHING_SEED = 500  # CreateConfiguredAudienceModel, docstring of `minMatchingSeedSize`
MOST_BINS = 25  # the model's maximum for `audienceSizeBins`
LEAST_ABSOLUTE_PERCENT = 1  # AWS user guide, quotas: absolute bins are 1 % to 20 % of the model's users

kinds.serve_get(CONFIGURED_AUDIENCE_MODEL)
kinds.serve_list(CONFIGURED_AUDIENCE_MODEL)


@operation("cleanroomsml", "CreateConfiguredAudienceModel", scope=access.own_account)
def create_configured_audience_model(call: Call, request: dict[str, Any]) -> dict[str, Any]:
    limits: Limits = call.context.limits
    kinds.require_room_for_one(
        call, CONFIGURED_AUDIENCE_MODEL, "Configured audience models", limits.max_configured_audience_models
    )
    model = _active_model(call, request["audienceModelArn"])
    body = {k: v for k, v in request.items() if k not in ("name", "tags")}
    body.setdefault("minMatchingSeedSize", DEFAULT_MATCHING_SEED)
    bins = list(range(1, limits.max_percentage_bin + 1))[:MOST_BINS]
    body.setdefault("audienceSizeConfig", {"audienceSizeType": "PERCENTAGE", "audienceSizeBins": bins})
    _check(call, body, model)
    configured = kinds.create(
        call, CONFIGURED_AUDIENCE_MODEL, name=request["name"], body=body | tags.of(request), parent=model.arn
    )
    return {"configuredAudienceModelArn": configured.arn}


@operation("cleanroomsml", "UpdateConfiguredAudienceModel", scope=access.own_account)
def update_configured_audience_model(call: Call, request: dict[str, Any]) -> dict[str, Any]:
    """Jobs that were started before keep what they were started with."""
    accounts.lock(call.tx, call.caller.account)  # the audience model may not be deleted at the same time
    configured = kinds.find(call, CONFIGURED_AUDIENCE_MODEL, request.pop("configuredAudienceModelArn"))
    body = configured.body | request
    model = _active_model(call, body["audienceModelArn"])
    _check(call, body, model)
    resources.update(call.tx, configured, now=call.now, body=body, parent=model.arn)
    return {"configuredAudienceModelArn": configured.arn}


@operation("cleanroomsml", "DeleteConfiguredAudienceModel", scope=access.own_account)
def delete_configured_audience_model(call: Call, request: dict[str, Any]) -> dict[str, Any]:
    configured = kinds.find(call, CONFIGURED_AUDIENCE_MODEL, request["configuredAudienceModelArn"])
    kinds.require_no_children(call.tx, CONFIGURED_AUDIENCE_MODEL, configured, AUDIENCE_GENERATION_JOB)
    resources.delete(call.tx, configured)
    return {}


def _active_model(call: Call, arn: str) -> Resource:
    model = kinds.find(call, AUDIENCE_MODEL, arn)
    if model.status != "ACTIVE":
        raise conflict(f"The audience model {arn} is {model.status}; it must be ACTIVE.")
    return model


def _check(call: Call, body: dict[str, Any], model: Resource) -> None:
    """Rules that the service model cannot state: who owns the output's place, and which sizes make sense."""
    output = body["outputConfig"]
    access.require_own_location(call, output["roleArn"], output["destination"]["s3Destination"]["s3Uri"])
    bins = body["audienceSizeConfig"]["audienceSizeBins"]
    if len(set(bins)) < len(bins):
        raise validation("audienceSizeBins must not name a size twice.")
    largest = call.context.limits.max_percentage_bin
    if body["audienceSizeConfig"]["audienceSizeType"] == "PERCENTAGE":
        if max(bins) > largest:
            raise validation(f"A PERCENTAGE bin must be 1 to {largest}; {max(bins)} is more.")
        return
    users = model.private["facts"]["users"]
    least, most = -(-users * LEAST_ABSOLUTE_PERCENT // 100), users * largest // 100
    outside = [size for size in bins if not least <= size <= most]
    if outside:
        raise validation(
            f"An ABSOLUTE bin must hold {LEAST_ABSOLUTE_PERCENT} % to {largest} % of the model's {users} users, "
            f"{least} to {most}; {', '.join(map(str, outside))} does not."
        )


# --- the resource policy -------------------------------------------------------------------------------


@operation("cleanroomsml", "PutConfiguredAudienceModelPolicy", scope=access.own_account)
def put_configured_audience_model_policy(call: Call, request: dict[str, Any]) -> dict[str, Any]:
    configured = kinds.find(call, CONFIGURED_AUDIENCE_MODEL, request["configuredAudienceModelArn"])
    text = request["configuredAudienceModelPolicy"]
    present = configured.private.get("policy")
    _check_expectation(request, present)
    try:
        policies.parse(text)
    except policies.PolicyError as error:
        raise validation(str(error)) from error
    resources.update(call.tx, configured, now=call.now, private=configured.private | {"policy": text})
    return {"configuredAudienceModelPolicy": text, "policyHash": policies.digest(text)}


@operation("cleanroomsml", "GetConfiguredAudienceModelPolicy", scope=access.own_account)
def get_configured_audience_model_policy(call: Call, request: dict[str, Any]) -> dict[str, Any]:
    configured = kinds.find(call, CONFIGURED_AUDIENCE_MODEL, request["configuredAudienceModelArn"])
    text = _policy(configured)
    return {
        "configuredAudienceModelArn": configured.arn,
        "configuredAudienceModelPolicy": text,
        "policyHash": policies.digest(text),
    }


@operation("cleanroomsml", "DeleteConfiguredAudienceModelPolicy", scope=access.own_account)
def delete_configured_audience_model_policy(call: Call, request: dict[str, Any]) -> dict[str, Any]:
    configured = kinds.find(call, CONFIGURED_AUDIENCE_MODEL, request["configuredAudienceModelArn"])
    _policy(configured)
    private = {k: v for k, v in configured.private.items() if k != "policy"}
    resources.update(call.tx, configured, now=call.now, private=private)
    return {}


def _policy(configured: Resource) -> str:
    text: str | None = configured.private.get("policy")
    if text is None:
        raise not_found(f"The configured audience model {configured.arn} has no policy.")
    return text


def _check_expectation(request: dict[str, Any], present: str | None) -> None:
    """`policyExistenceCondition` and `previousPolicyHash`: put only over what the caller believes is there."""
    condition = request.get("policyExistenceCondition")
    if condition == "POLICY_MUST_EXIST" and present is None:
        raise validation("policyExistenceCondition is POLICY_MUST_EXIST, but there is no policy.")
    if condition == "POLICY_MUST_NOT_EXIST" and present is not None:
        raise validation("policyExistenceCondition is POLICY_MUST_NOT_EXIST, but there is a policy.")
    expected = request.get("previousPolicyHash")
    if expected is not None and (present is None or policies.digest(present) != expected):
        raise validation("previousPolicyHash is not the hash of the present policy; get the policy and try again.")


def reachable(call: Call, arn: str, *, job_arn: str, facts: dict[str, str]) -> Resource:
    """The configured audience model that the caller may start a job on: its own, or one whose policy says so.

    `job_arn` is the owner's copy of the job that would be made, `facts` are those of `policies.decide`.

    Raises
    ------
    ResourceNotFoundException : there is none in the caller's own account.
    AccessDeniedException : it is another account's, and there is none or no policy allows it. Both look alike.
    """
    if access.account_of(arn) == call.caller.account:
        return kinds.find(call, CONFIGURED_AUDIENCE_MODEL, arn)
    scope = Scope.service(why="a resource policy decides on another account's configured audience model")
    try:
        configured = resources.load(call.tx, scope, CONFIGURED_AUDIENCE_MODEL.name, arn)
        policy = policies.parse(configured.private["policy"])
        decision = policies.decide(policy, account=call.caller.account, resource=arn, related=job_arn, facts=facts)
        if configured.region != call.caller.region:
            decision = policies.Decision(False, f"the request came to the Region {call.caller.region}")
    except Missing:
        decision = policies.Decision(False, "there is no such configured audience model")
    except policies.PolicyError:
        decision = policies.Decision(False, "the policy is one that is no longer accepted; put another")
    except KeyError:
        decision = policies.Decision(False, "the configured audience model has no policy")
    if decision.allowed:
        audit.record(
            call.tx,
            now=call.now,
            account=configured.account,
            operation=f"{call.service}:{call.operation}",
            resource=arn,
            allowed=True,
            reason=decision.reason,
            detail={"caller": call.caller.account},
        )
        return configured
    raise access.Denial(
        f"Account {call.caller.account} may not perform {policies.ACTION} on {arn}: no resource policy allows it. "
        "The model's owner grants it with PutConfiguredAudienceModelPolicy; where the policy asks for a "
        "collaboration, pass its collaborationId.",
        audit=decision.reason,
        owner=access.account_of(arn),
        resource=arn,
    )
