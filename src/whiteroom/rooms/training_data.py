"""Training datasets: which table holds the interactions and what its columns mean.

Metadata only: the table itself is read when an audience model is made from the dataset.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from whiteroom.rooms import access, kinds, tags
from whiteroom.rooms.kinds import AUDIENCE_MODEL, TRAINING_DATASET
from whiteroom.store import accounts, resources
from whiteroom.wire.errors import access_denied, validation
from whiteroom.wire.service import operation

if TYPE_CHECKING:
    from whiteroom.wire.service import Call

IDS = ("USER_ID", "ITEM_ID", "TIMESTAMP")
FEATURES = ("CATEGORICAL_FEATURE", "NUMERICAL_FEATURE")
MOST_FEATURES = 10  # AWS user guide, ml-training-data-requirements

kinds.serve_get(TRAINING_DATASET)
kinds.serve_list(TRAINING_DATASET)


@operation("cleanroomsml", "CreateTrainingDataset", scope=access.own_account)
def create_training_dataset(call: Call, request: dict[str, Any]) -> dict[str, Any]:
    access.require_own_role(call, request["roleArn"])
    dataset = request["trainingData"][0]
    source = dataset["inputConfig"]["dataSource"]["glueDataSource"]
    if source.get("catalogId", call.caller.account) != call.caller.account:
        raise access_denied(
            f"The catalog {source['catalogId']} is not your account's; leave catalogId out or pass "
            f"{call.caller.account}.",
            audit="catalog of another account",
        )
    _check_schema(dataset["inputConfig"]["schema"])
    quota = call.context.limits.max_training_datasets
    accounts.lock(call.tx, call.caller.account)
    if resources.count(call.tx, call.scope, TRAINING_DATASET.name) >= quota:
        # The model declares no ServiceQuotaExceededException for this operation.
        raise validation(f"Your account has {quota} training datasets, the most it may have. Delete one first.")
    body = kinds.picked(request, "trainingData", "roleArn", "description")
    resource = kinds.create(call, TRAINING_DATASET, name=request["name"], body=body | tags.of(request))
    return {"trainingDatasetArn": resource.arn}


@operation("cleanroomsml", "DeleteTrainingDataset", scope=access.own_account)
def delete_training_dataset(call: Call, request: dict[str, Any]) -> dict[str, Any]:
    resource = kinds.find(call, TRAINING_DATASET, request["trainingDatasetArn"])
    kinds.require_no_children(call.tx, TRAINING_DATASET, resource, AUDIENCE_MODEL)
    resources.delete(call.tx, resource)
    return {}


def _check_schema(schema: list[dict[str, Any]]) -> None:
    """One column each for user, item and time, at most ten features, no name twice."""
    names = Counter(column["columnName"].lower() for column in schema)
    doubled = [name for name, times in names.items() if times > 1]
    if doubled:
        raise validation(f"The schema names a column twice (upper and lower case are one): {', '.join(doubled)}.")
    types = Counter(column["columnTypes"][0] for column in schema)
    for kind in IDS:
        if types[kind] != 1:
            raise validation(f"The schema must have exactly one {kind} column; it has {types[kind]}.")
    features = sum(types[kind] for kind in FEATURES)
    if features > MOST_FEATURES:
        raise validation(f"The schema has {features} feature columns; at most {MOST_FEATURES} are used.")
