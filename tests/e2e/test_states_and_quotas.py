"""What a waiting client sees, and AWS's floors and quotas under the preset `aws`."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from botocore.exceptions import ClientError

from tests.population import dataset_request, population, put_parquet, register_table, train
from tests.server import running

PEOPLE = population(users=400, items=100, per_user=8)


def test_a_model_is_pending_then_in_progress_then_active(tmp_path: Path) -> None:
    with running(tmp_path / "data", "--workers", "0") as server:
        account = server.account("111122223333", "publisher", "publisher-data")
        location = put_parquet(account, "publisher-data", "clicks/p.parquet", PEOPLE.table)
        register_table(server, account, "clicks", location)
        dataset = account.ml.create_training_dataset(**dataset_request(account, "d", "clicks"))["trainingDatasetArn"]
        arn = account.ml.create_audience_model(name="m", trainingDatasetArn=dataset)["audienceModelArn"]
        assert account.ml.get_audience_model(audienceModelArn=arn)["status"] == "CREATE_PENDING"
        worker = subprocess.Popen(
            [sys.executable, "-m", "whiteroom", "worker", "--data-dir", str(server.data_dir)], env=server.environment
        )
        seen = []
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and seen[-1:] != ["ACTIVE"]:
            status = account.ml.get_audience_model(audienceModelArn=arn)["status"]
            seen += [status] if status not in seen else []
            time.sleep(0.01)
        worker.send_signal(signal.SIGTERM)
        assert worker.wait(timeout=20) == 0
        assert seen[-2:] == ["CREATE_IN_PROGRESS", "ACTIVE"]


def test_the_aws_preset_has_awss_floors_and_quotas(tmp_path: Path) -> None:
    environment = {"WHITEROOM_LIMITS_PRESET": "aws"}
    with running(tmp_path / "data", environment=environment) as server:
        account = server.account("111122223333", "publisher", "publisher-data")
        location = put_parquet(account, "publisher-data", "clicks/p.parquet", PEOPLE.table)
        register_table(server, account, "clicks", location)
        model = train(account, "small", "clicks")
        assert model["statusDetails"]["statusCode"] == "INSUFFICIENT_INTERACTIONS"
        assert "1000000" in model["statusDetails"]["message"]
    with running(tmp_path / "data", "--workers", "0", environment=environment) as server:
        account = account.__class__(
            account.id, account.access_key_id, account.secret_access_key, server.urls["apiUrl"], None
        )
        request = dataset_request(account, "d", "clicks")
        dataset = account.ml.create_training_dataset(**request)["trainingDatasetArn"]
        for n in range(2):
            account.ml.create_audience_model(name=f"m{n}", trainingDatasetArn=dataset)
        with pytest.raises(ClientError) as caught:
            account.ml.create_audience_model(name="m2", trainingDatasetArn=dataset)
        answer = caught.value.response
        assert answer["Error"]["Code"] == "ServiceQuotaExceededException"
        assert answer["ResponseMetadata"]["HTTPStatusCode"] == 402
        assert (answer["quotaName"], answer["quotaValue"]) == ("Pending audience models", 2)
