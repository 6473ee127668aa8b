"""What a training does with the memory that it may take: the rest lies on disk, but nothing does where a key is set."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pytest

from tests.population import SCHEMA, population
from whiteroom.config import PRESETS, Settings
from whiteroom.data import tables
from whiteroom.jobs.kinds import JobError
from whiteroom.rooms import audience_models

TABLE = population().table


@pytest.fixture
def spilled(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Path]]:
    """The directories in which files to spill to were made."""
    monkeypatch.setattr(tables, "batches", lambda *_, **__: iter(TABLE.to_batches()))
    made: list[Path] = []
    make = tempfile.TemporaryFile

    def temporary_file(*arguments: Any, **named: Any) -> Any:
        made.append(named["dir"])
        return make(*arguments, **named)

    monkeypatch.setattr(tempfile, "TemporaryFile", temporary_file)
    return made


def work(directory: Path, memory_bytes: int, key: str | None) -> Any:
    columns = [SimpleNamespace(name=name, type=kind) for name, kind in _glue_types().items()]
    table = SimpleNamespace(columns=columns, database="shop", table="clicks")
    source = {"glueDataSource": {"databaseName": "shop", "tableName": "clicks"}}
    payload = {
        "account": "111122223333",
        "input": {"schema": SCHEMA, "dataSource": source},
        "kmsKeyArn": key,
        "start": None,
        "end": None,
    }
    room = SimpleNamespace(
        catalog=SimpleNamespace(table=lambda *_: table),
        files=SimpleNamespace(as_account=lambda _account: None),
        settings=Settings(),
        limits=PRESETS["open"],
    )
    job = SimpleNamespace(payload=payload, id=7)
    return SimpleNamespace(
        job=job, context=room, directory=directory, memory_bytes=memory_bytes, progress=lambda *_: None
    )


def _glue_types() -> dict[str, str]:
    return {"user_id": "string", "item_id": "string", "timestamp": "bigint"}


def test_without_a_key_what_does_not_fit_lies_in_the_attempts_directory_and_leaves_nothing(
    tmp_path: Path, spilled: list[Path]
) -> None:
    tight = work(tmp_path, 500_000, None)
    model = audience_models._fit(tight.context, tight)
    assert spilled and set(spilled) == {tmp_path}
    assert list(tmp_path.iterdir()) == [], "the files have no name"
    spilled.clear()
    roomy = work(tmp_path, 2**30, None)
    plenty = audience_models._fit(roomy.context, roomy)
    assert spilled == []
    seed = population().audience[:30]
    assert (model.score(seed) == plenty.score(seed)).all()
    assert len(model.report_.probes) == audience_models.PROBES


def test_with_a_key_nothing_is_written_and_too_little_memory_is_told(tmp_path: Path, spilled: list[Path]) -> None:
    key = "arn:aws:kms:us-east-1:111122223333:key/1234"
    tight = work(tmp_path, 500_000, key)
    with pytest.raises(JobError) as refused:
        audience_models.train(tight)
    assert refused.value.failure.status_code == "OUT_OF_MEMORY"
    assert "with kmsKeyArn none of them may lie on disk" in refused.value.failure.message
    assert str(tmp_path) not in refused.value.failure.message
    enough = work(tmp_path, 2**30, key)
    assert audience_models._fit(enough.context, enough).n_users_ == len(population().users)
    assert spilled == []


def test_an_allocation_that_fails_ends_the_training_at_once(
    tmp_path: Path, spilled: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_memory(*_: Any, **__: Any) -> Iterator[pa.RecordBatch]:
        raise MemoryError

    monkeypatch.setattr(tables, "batches", no_memory)
    with pytest.raises(JobError) as refused:
        audience_models.train(work(tmp_path, 2**30, None))
    assert refused.value.failure.status_code == "OUT_OF_MEMORY"
    assert "more than the 1.0 GiB" in refused.value.failure.message
    assert "job 7" in refused.value.failure.message
