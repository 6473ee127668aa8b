"""A model on disk: a directory of .npy and Arrow files and a manifest that names them all.

The manifest is written last and holds shape, type, size and SHA-256 of every file, so that a half-written, changed
or foreign directory is refused. Nothing is ever unpickled. Files go through an opener that the caller may replace,
for example by one that encrypts; only plain files are memory-mapped.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa

from whiteroom.engines.lookalike.errors import ModelFileError

FORMAT = "whiteroom-lookalike"
VERSION = 2
MANIFEST = "manifest.json"
_CHUNK = 1 << 20

Opener = Callable[[Path, str], Any]
"""(path, "rb" or "wb") -> a binary file object that is a context manager."""


def plain(path: Path, mode: str) -> Any:
    return path.open(mode)


@dataclass
class _Hashed:
    """A file object that counts and hashes the bytes written to or read from it."""

    file: BinaryIO

    def __post_init__(self) -> None:
        self.sha256 = hashlib.sha256()
        self.size = 0
        self.closed = False

    def write(self, data: Any) -> int:
        self.file.write(data)
        length = memoryview(data).nbytes
        self.sha256.update(data)
        self.size += length
        return length

    def read(self, length: int = -1) -> bytes:
        data = self.file.read(length)
        self.sha256.update(data)
        self.size += len(data)
        return data

    def flush(self) -> None:
        """Nothing is buffered here."""

    def facts(self) -> dict[str, Any]:
        return {"bytes": self.size, "sha256": self.sha256.hexdigest()}


def write_model(
    directory: Path,
    open_file: Opener,
    *,
    facts: Mapping[str, Any],
    arrays: Mapping[str, np.ndarray],
    texts: Mapping[str, pa.Array],
) -> None:
    """Write `arrays` and `texts` under their names, then the manifest with `facts` (anything JSON)."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / MANIFEST).unlink(missing_ok=True)
    files: dict[str, Any] = {}
    for name, array in arrays.items():
        with open_file(directory / f"{name}.npy", "wb") as file:
            hashed = _Hashed(file)
            np.lib.format.write_array(hashed, np.ascontiguousarray(array), allow_pickle=False)
        files[f"{name}.npy"] = hashed.facts() | {"shape": list(array.shape), "dtype": array.dtype.str}
    for name, text in texts.items():
        with open_file(directory / f"{name}.arrow", "wb") as file:
            hashed = _Hashed(file)
            batch = pa.record_batch([text.cast(pa.large_string())], names=["id"])
            with pa.ipc.new_stream(pa.PythonFile(hashed, mode="w"), batch.schema) as stream:
                stream.write_batch(batch)
        files[f"{name}.arrow"] = hashed.facts() | {"rows": len(text)}
    manifest = {"format": FORMAT, "version": VERSION, "facts": dict(facts), "files": files}
    with open_file(directory / MANIFEST, "wb") as file:
        file.write(json.dumps(manifest, indent=2).encode())


def read_model(directory: Path, open_file: Opener) -> tuple[dict[str, Any], dict[str, np.ndarray], dict[str, pa.Array]]:
    """(facts, arrays, texts) as written. Plain files come as read-only memory maps.

    Raises
    ------
    ModelFileError : the directory is no model, of another version, or a file is missing, cut or changed.
    """
    with _readable(directory):
        manifest = _read_manifest(directory, open_file)
        arrays: dict[str, np.ndarray] = {}
        texts: dict[str, pa.Array] = {}
        for file_name, expected in manifest["files"].items():
            path = directory / file_name
            if path.parent != directory:
                raise ModelFileError(f"{directory / MANIFEST} names {file_name!r}, a file outside its directory.")
            if path.suffix == ".npy":
                arrays[path.stem] = _read_array(path, open_file, expected)
            else:
                texts[path.stem] = _read_text(path, open_file, expected)
        return manifest["facts"], arrays, texts


def read_facts(directory: Path, open_file: Opener) -> dict[str, Any]:
    """The facts alone, without looking at the other files.

    Raises
    ------
    ModelFileError : there is no manifest of this version.
    """
    with _readable(directory):
        facts: dict[str, Any] = _read_manifest(directory, open_file)["facts"]
        return facts


@contextmanager
def _readable(directory: Path) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as error:
        raise ModelFileError(f"{directory} holds no whole model: {error.filename or error} is missing.") from error
    except (OSError, KeyError, TypeError, AttributeError, ValueError, EOFError, pa.ArrowException) as error:
        if isinstance(error, ModelFileError):
            raise
        raise ModelFileError(f"{directory} holds no readable model: {error}") from error


def _read_manifest(directory: Path, open_file: Opener) -> dict[str, Any]:
    with open_file(directory / MANIFEST, "rb") as file:
        manifest: dict[str, Any] = json.loads(file.read())
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise ModelFileError(f"{directory / MANIFEST} does not describe a lookalike model.")
    if manifest.get("version") != VERSION:
        raise ModelFileError(
            f"{directory} is of format version {manifest.get('version')}; this release reads version {VERSION}. "
            "Train the model again."
        )
    return manifest


def _is_plain(file: Any) -> bool:
    """Whether the file on disk is what is read, so that it can be mapped."""
    return isinstance(file, io.BufferedReader) and isinstance(file.raw, io.FileIO)


def _verify(path: Path, hashed: _Hashed, expected: dict[str, Any]) -> None:
    while hashed.read(_CHUNK):
        pass
    if hashed.facts() != {"bytes": expected["bytes"], "sha256": expected["sha256"]}:
        raise ModelFileError(f"{path} is cut or changed: it is not the file that was saved.")


def _read_array(path: Path, open_file: Opener, expected: dict[str, Any]) -> np.ndarray:
    with open_file(path, "rb") as file:
        hashed = _Hashed(file)
        if _is_plain(file):
            _verify(path, hashed, expected)
            array = np.load(path, mmap_mode="r", allow_pickle=False)
        else:
            array = np.lib.format.read_array(hashed, allow_pickle=False)
            _verify(path, hashed, expected)
    if list(array.shape) != expected["shape"] or array.dtype.str != expected["dtype"]:
        raise ModelFileError(f"{path} has shape {array.shape} and type {array.dtype}, not those of its manifest.")
    return np.asarray(array)


def _read_text(path: Path, open_file: Opener, expected: dict[str, Any]) -> pa.Array:
    with open_file(path, "rb") as file:
        hashed = _Hashed(file)
        if _is_plain(file):
            _verify(path, hashed, expected)
            table = pa.ipc.open_stream(pa.memory_map(str(path))).read_all()
        else:
            data = hashed.read()
            _verify(path, hashed, expected)
            table = pa.ipc.open_stream(data).read_all()
    column = table.column("id").combine_chunks()
    column = pa.concat_arrays(column.chunks) if isinstance(column, pa.ChunkedArray) else column
    if len(column) != expected["rows"]:
        raise ModelFileError(f"{path} has {len(column)} rows, not the {expected['rows']} of its manifest.")
    return column
