"""A server killed at any moment loses nothing it has acknowledged, and a full disk loses nothing either."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.population import (
    configure,
    dataset_request,
    export,
    exported_ids,
    population,
    put_parquet,
    put_seed,
    register_table,
    start,
    train,
)
from tests.server import Account, Server, wait

FAST = {"WHITEROOM_LEASE_SECONDS": "1.5"}
PEOPLE = population(users=400, items=100, per_user=8)


def prepared(server: Server) -> tuple[Account, str, str]:
    """An account with a trained model: (account, configured model's ARN, seed's URI)."""
    account = server.account("111122223333", "publisher", "publisher-data", "publisher-out")
    location = put_parquet(account, "publisher-data", "clicks/part-0.parquet", PEOPLE.table)
    register_table(server, account, "clicks", location)
    model = train(account, "clicks", "clicks")
    assert model["status"] == "ACTIVE", model
    configured = configure(account, "clicks", model["audienceModelArn"], "s3://publisher-out/")
    return account, configured, put_seed(account, "publisher-data", "seed.jsonl", PEOPLE.audience[:40])


def restarted(server: Server, account: Account) -> Account:
    """After SIGKILL: nothing of the old server may run any more, and the new one has other ports."""
    server.start()
    keys = (account.id, account.access_key_id, account.secret_access_key)
    return Account(*keys, server.urls["apiUrl"], server.urls["s3Url"])


@pytest.mark.chaos
def test_a_server_killed_at_every_state_finishes_all_it_acknowledged(tmp_path: Path, database_url: str) -> None:
    server = Server(tmp_path / "data", environment=FAST | {"WHITEROOM_DATABASE_URL": database_url})
    server.start()
    try:
        account, configured, seed = prepared(server)
        rng = random.Random(3)
        jobs: list[str] = []
        for n in range(6):
            jobs.append(start(account, f"job-{n}", configured, seed))
            time.sleep(rng.choice([0, 0.02, 0.2, 0.6, 1.0, 1.5]))
            server.stop(signal.SIGKILL)
            account = restarted(server, account)
        documents = [wait(account.ml.get_audience_generation_job, audienceGenerationJobArn=arn) for arn in jobs]
        assert [d["status"] for d in documents] == ["ACTIVE"] * 6, documents
        assert len({str(d["metrics"]) for d in documents}) == 1, "the same seed has the same result, interrupted or not"
        listed = account.ml.list_audience_generation_jobs()["audienceGenerationJobs"]
        assert sorted(j["audienceGenerationJobArn"] for j in listed) == sorted(jobs)

        account.ml.delete_audience_generation_job(audienceGenerationJobArn=jobs[0])
        server.stop(signal.SIGKILL)
        account = restarted(server, account)
        _gone(account, jobs[0])
        done = export(account, "all", jobs[1], "PERCENTAGE", 20)
        assert len(exported_ids(account, done["outputLocation"])) == 80
    finally:
        if server.process is not None:
            assert server.stop() == 0


def _gone(account: Account, arn: str) -> None:
    for _ in range(300):
        try:
            account.ml.get_audience_generation_job(audienceGenerationJobArn=arn)
        except ClientError as error:
            assert error.response["Error"]["Code"] == "ResourceNotFoundException"
            return
        time.sleep(0.1)
    raise AssertionError(f"{arn} was not deleted")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 48 MB."""
    if os.geteuid() != 0:
        pytest.skip("mounting a small file system needs root")
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=48m", "tmpfs", disk], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"cannot mount a small file system: {mounted.stderr.decode().strip()}")
    yield disk
    subprocess.run(["umount", "--lazy", disk], check=True)


def test_a_full_disk_fails_what_needs_room_and_loses_nothing(small_disk: Path) -> None:
    server = Server(small_disk / "data", environment=FAST | {"WHITEROOM_MAX_ATTEMPTS": "1"})
    server.start()
    try:
        account, configured, seed = prepared(server)
        job = start(account, "before", configured, seed)
        assert wait(account.ml.get_audience_generation_job, audienceGenerationJobArn=job)["status"] == "ACTIVE"
        filler = small_disk / "filler"
        with pytest.raises(OSError, match="No space left"), filler.open("wb", buffering=0) as file:
            while True:
                file.write(b"x" * 4096)
        refused = _outcome(lambda: account.ml.create_training_dataset(**dataset_request(account, "full", "clicks")))
        failed = _outcome(lambda: account.ml.start_audience_export_job(
            name="full", audienceGenerationJobArn=job, audienceSize={"type": "PERCENTAGE", "value": 20}
        ))  # fmt: skip
        assert {refused, failed} <= {"InternalServerException", "InternalServiceException", "done"}
        filler.unlink()

        names = [d["name"] for d in account.ml.list_training_datasets()["trainingDatasets"]]
        assert names == (["full", "clicks"] if refused == "done" else ["clicks"])
        assert account.ml.get_audience_generation_job(audienceGenerationJobArn=job)["status"] == "ACTIVE"
        done = export(account, "after", job, "PERCENTAGE", 20)
        assert done["status"] == "ACTIVE"
        assert len(exported_ids(account, done["outputLocation"])) == 80
    finally:
        server.stop()
        shutil.rmtree(small_disk / "data", ignore_errors=True)


def _outcome(call: Any) -> str:
    try:
        call()
    except ClientError as error:
        code: str = error.response["Error"]["Code"]
        return code
    return "done"
