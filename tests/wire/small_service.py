"""A few small operations to serve, and what they keep."""

import threading
from contextlib import contextmanager

from whiteroom.wire import errors
from whiteroom.wire.service import Registry, operation
from whiteroom.wire.sigv4 import Credential

KEY = Credential("111122223333", "AKIAPUBLISHER0000001", "the publisher's secret")
MAX_BODY_BYTES = 100_000
THREADS = 4


class Ledger:
    """What the service was given to keep: training datasets by ARN, and what happened to its transactions."""

    def __init__(self):
        self.datasets = {}
        self.transactions = []
        self.denied = []
        self.ready = True
        self.barrier = threading.Barrier(THREADS + 1)

    @contextmanager
    def transaction(self, writes):
        before = dict(self.datasets)
        try:
            yield self
        except BaseException:
            self.datasets = before
            self.transactions.append(("rolled back", writes))
            raise
        self.transactions.append(("committed", writes))


def operations_of_the_test() -> Registry:
    registry: Registry = {}

    def served(name, service="cleanroomsml", scope=lambda call: call.caller.account):
        return operation(service, name, scope=scope, registry=registry)

    @served("CreateTrainingDataset")
    def create(call, values):
        arn = f"arn:aws:cleanrooms-ml:{call.caller.region}:{call.scope}:training-dataset/{len(call.tx.datasets)}/x"
        call.tx.datasets[arn] = {**values, "createTime": call.now, "updateTime": call.now, "status": "ACTIVE"}
        if values["name"] == "fails":
            raise RuntimeError("the secret of the house")
        if values["name"] == "denied":
            raise errors.access_denied("You may not.", audit="the test says so")
        if values["name"] == "unknown answer":
            return {"arn": arn}
        if values["name"] == "unknown error":
            raise errors.ApiError("TeapotException", "short and stout")
        return {"trainingDatasetArn": arn}

    @served("GetTrainingDataset")
    def get(call, values):
        arn = values["trainingDatasetArn"]
        if arn not in call.tx.datasets:
            raise errors.not_found(f"There is no training dataset {arn}.")
        return {**call.tx.datasets[arn], "trainingDatasetArn": arn}

    @served("ListTrainingDatasets")
    def listing(call, values):
        if values.get("nextToken") == "wait":
            call.tx.barrier.wait(timeout=20)
        return {"trainingDatasets": []}

    @served("DeleteTrainingDataset")
    def delete(call, values):
        del call.tx.datasets[values["trainingDatasetArn"]]

    def nobody(call):
        raise errors.access_denied("Nobody may.", audit="no scope")

    served("ListAudienceModels", scope=nobody)(lambda call, values: {"audienceModels": []})
    served("CreateAudienceModel")(lambda call, values: _raise(errors.quota_exceeded("Enough.", "models", 2)))
    served("TagResource")(lambda call, values: {})
    served("ListTagsForResource")(lambda call, values: {"tags": {"service": call.service}})
    served("ListTagsForResource", "cleanrooms")(lambda call, values: {"tags": {"service": call.service}})
    served("DeleteMembership", "cleanrooms")(lambda call, values: None)
    return registry


def _raise(error):
    raise error
