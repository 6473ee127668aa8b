"""A saved model is the same model; anything else in its place is refused."""

from __future__ import annotations

import gzip
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.engines.populations import noise, small
from whiteroom.data.keys import open_encrypted
from whiteroom.engines.lookalike import Lookalike, ModelFileError, Schema

SEED = list(range(30))


@pytest.fixture(scope="module")
def model() -> Lookalike:
    kind = np.random.default_rng(0).integers(0, 4, 800)
    table = noise(kind=kind, size=kind + 0.5)
    return small(max_users=700, random_state=3).fit(table, schema=Schema(categorical=("kind",), numerical=("size",)))


@pytest.fixture
def saved(model: Lookalike, tmp_path: Path) -> Path:
    model.save(tmp_path / "model")
    return tmp_path / "model"


def assert_same(one: Lookalike, other: Lookalike) -> None:
    assert one.user_ids_.equals(other.user_ids_)
    assert one.item_ids_.equals(other.item_ids_)
    for name in ("feature_names_", "n_users_", "n_items_", "n_interactions_", "n_active_users_", "random_state"):
        assert getattr(one, name) == getattr(other, name)
    a, b = one.rank(SEED), other.rank(SEED)
    np.testing.assert_array_equal(a.scores, b.scores)
    np.testing.assert_array_equal(a.order, b.order)
    assert a.recall == b.recall
    np.testing.assert_array_equal(a.relevance([1, 10, 100]), b.relevance([1, 10, 100]))


def test_a_loaded_model_answers_as_the_saved_one_from_mapped_files(model: Lookalike, saved: Path) -> None:
    loaded = Lookalike.load(str(saved))
    assert_same(model, loaded)
    assert isinstance(loaded.space_.vectors.base, np.memmap)
    loaded.save(saved.parent / "again")
    assert_same(model, Lookalike.load(saved.parent / "again"))


def test_a_model_can_be_kept_encrypted(model: Lookalike, tmp_path: Path) -> None:
    key = bytes(range(32))

    def encrypted(path: Path, mode: str) -> Any:
        return open_encrypted(path, mode, key)

    model.save(tmp_path / "secret", open=encrypted)
    assert_same(model, Lookalike.load(tmp_path / "secret", open=encrypted))
    assert not any(
        b"NUMPY" in file.read_bytes() or b"whiteroom" in file.read_bytes() for file in (tmp_path / "secret").iterdir()
    )
    with pytest.raises(ModelFileError):
        Lookalike.load(tmp_path / "secret")


def test_files_may_go_through_any_file_object(model: Lookalike, tmp_path: Path) -> None:
    model.save(tmp_path / "packed", open=gzip.open)
    assert_same(model, Lookalike.load(tmp_path / "packed", open=gzip.open))


def test_every_file_is_needed_whole_and_unchanged(saved: Path, tmp_path: Path) -> None:
    for name in sorted(file.name for file in saved.iterdir()):
        for harm in ("missing", "cut", "changed"):
            hurt = tmp_path / f"{harm} {name}"
            shutil.copytree(saved, hurt)
            data = (hurt / name).read_bytes()
            if harm == "missing":
                (hurt / name).unlink()
            elif harm == "cut":
                (hurt / name).write_bytes(data[: len(data) // 2])
            else:
                (hurt / name).write_bytes(data[:-3] + bytes([data[-3] ^ 1]) + data[-2:])
            with pytest.raises(ModelFileError, match=r"holds no|is cut or changed"):
                Lookalike.load(hurt)


def test_a_foreign_directory_is_no_model(saved: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match="missing"):
        Lookalike.load(tmp_path / "nothing")
    with pytest.raises(ModelFileError, match="missing"):
        Lookalike.load(saved.parent)
    for text, message in (
        ("[]", "does not describe"),
        ('{"format": "other"}', "does not describe"),
        ('{"format": "whiteroom-lookalike", "version": 99}', "reads version 2"),
        ('{"format": "whiteroom-lookalike", "version": 2}', "holds no readable model"),
        ('{"format": "whiteroom-lookalike", "version": 2, "files": {}, "facts": {}}', "no whole model"),
        ("\x80", "no readable model"),
    ):
        (saved / "manifest.json").write_bytes(text.encode("latin-1"))
        with pytest.raises(ModelFileError, match=message):
            Lookalike.load(saved)


def test_a_manifest_cannot_name_files_elsewhere(saved: Path) -> None:
    manifest = json.loads((saved / "manifest.json").read_text())
    for name in ("../outside.npy", "/etc/passwd"):
        changed = manifest | {"files": manifest["files"] | {name: {}}}
        (saved / "manifest.json").write_text(json.dumps(changed))
        with pytest.raises(ModelFileError, match="outside its directory"):
            Lookalike.load(saved)


def test_pickles_are_never_read(saved: Path) -> None:
    np.save(saved / "axes.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(ModelFileError):
        Lookalike.load(saved)


def test_a_save_that_breaks_off_leaves_no_model(model: Lookalike, saved: Path) -> None:
    def full_disk(path: Path, mode: str) -> Any:
        if path.name == "right.npy":
            raise OSError(28, "No space left on device")
        return path.open(mode)

    with pytest.raises(OSError, match="No space left"):
        model.save(saved, open=full_disk)
    with pytest.raises(ModelFileError, match="missing"):
        Lookalike.load(saved)
