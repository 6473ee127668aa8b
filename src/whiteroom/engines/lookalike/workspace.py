"""Where the large arrays of training live: in memory while they fit, else in files that the system may page out.

A file is mapped, so that its pages are written and dropped by the system under pressure and never count as
memory that must be swapped. Files have no name: they hold codes and counts, never ids, and their space is free
again when the last array on them goes, however the process ends. Knows nothing of interactions or matrices.
"""

from __future__ import annotations

import errno
import mmap
import os
import tempfile
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from math import prod
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

import numpy as np

from whiteroom.engines.lookalike.errors import MemoryLimitError

PIECE_BYTES = 32 << 20
"""Growing arrays are kept in pieces of this size: malloc hands pieces as large as this back at once when freed."""

ALWAYS_ALLOWED = 64 << 20
"""Bytes that cannot spill and are not refused however little memory may be used."""


class Workspace:
    """Hands out arrays, in memory while their sum is within `memory`, beyond that on disk.

    Parameters
    ----------
    directory : where files are made; by default the system's temporary directory. It should be on a disk: files in
        a tmpfs are memory again.
    memory : bytes. What an array took is free again when it is garbage.
    spills : whether anything may be written to disk; if not, more than `memory` is an error.

    Once closed it hands out nothing more; arrays handed out before stay valid.
    """

    def __init__(self, directory: Path | None = None, memory: int = 2 << 30, *, spills: bool = True) -> None:
        self.directory = directory
        self.memory = memory
        self.spills = spills
        self.used = 0
        self._fixed = 0
        self._closed = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self._closed = True

    def array(self, shape: int | tuple[int, ...], dtype: Any) -> np.ndarray:
        """An array of undefined content, a np.memmap if there is no memory left for it.

        Raises
        ------
        MemoryLimitError : there is no room on the disk either, or nothing may be written there.
        """
        size = prod(shape if isinstance(shape, tuple) else (shape,)) * np.dtype(dtype).itemsize
        if size == 0 or self.reserve(size):
            array: np.ndarray = np.empty(shape, dtype)
            weakref.finalize(array, self.release, size)
            return array
        with self._file() as file, self._disk_room():
            _allocate(file.fileno(), size)
            return np.memmap(file, dtype, "r+", shape=shape)

    def growing(self, dtype: Any) -> Growing:
        """An array of one dimension whose length is not known yet."""
        return Growing(self, np.dtype(dtype))

    def reserve(self, size: int) -> bool:
        """Count `size` bytes of memory as used, if they are left."""
        if self._closed:
            raise ValueError("The workspace is closed.")
        if self.used + size > self.memory:
            return False
        self.used += size
        return True

    def release(self, size: int) -> None:
        self.used -= size

    def charge(self, size: int, what: str) -> None:
        """Count memory for something that cannot spill, and so leaves less for arrays.

        Raises
        ------
        MemoryLimitError : all that was charged does not fit into the memory.
        """
        self.used += size
        self._fixed += size
        if self._fixed > max(self.memory, ALWAYS_ALLOWED):
            raise MemoryLimitError(
                f"{what} alone need more than the {self.memory / 2**30:.1f} GiB of memory that training may use. "
                "Leave out rare ones, or allow more memory."
            )

    def _file(self) -> IO[bytes]:
        if not self.spills:
            raise MemoryLimitError(
                f"The data need more than the {self.memory / 2**30:.1f} GiB of memory they may use, and nothing of "
                "them may be written to disk. Allow more memory, or use less data."
            )
        try:
            return tempfile.TemporaryFile(dir=self.directory)
        except OSError as error:
            raise MemoryLimitError(f"Cannot make a file to spill to: {error}") from error

    @contextmanager
    def _disk_room(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
                raise
            where = self.directory or tempfile.gettempdir()
            raise MemoryLimitError(
                f"The data need more than the {self.memory / 2**30:.1f} GiB of memory they may use, and {where} has no "
                "room left for the rest. Free space there, name another directory, or allow more memory."
            ) from error


class Growing:
    """Appended to piece by piece; `finish` gives the whole as one array, and ends the growing."""

    def __init__(self, workspace: Workspace, dtype: np.dtype) -> None:
        self._workspace = workspace
        self._dtype = dtype
        self._pieces: list[np.ndarray] = []
        self._room = 0
        """Entries left in the last piece."""
        self._file: IO[bytes] | None = None
        self._length = 0

    def __len__(self) -> int:
        return self._length

    def append(self, values: np.ndarray) -> None:
        """
        Raises
        ------
        MemoryLimitError : no room in memory nor on the disk.
        """
        values = np.ascontiguousarray(values, self._dtype)
        self._length += len(values)
        if self._file is None:
            values = self._keep(values)
        if len(values):
            if self._file is None:
                self._spill()
            self._write(values)

    def finish(self) -> np.ndarray:
        if self._file is not None:
            with self._file as file, self._workspace._disk_room():
                file.flush()
                return np.memmap(file, self._dtype, "r+", shape=(self._length,))
        self._workspace.release(sum(piece.nbytes for piece in self._pieces))
        whole = self._workspace.array(self._length, self._dtype)
        at = 0
        self._pieces.reverse()
        while self._pieces:  # each piece is freed when it is copied: at no time is everything there twice
            piece = self._pieces.pop()[: self._length - at]
            whole[at : at + len(piece)] = piece
            at += len(piece)
        return whole

    def _keep(self, values: np.ndarray) -> np.ndarray:
        """Put values into memory; returns those there was no memory for."""
        while len(values):
            if not self._room:
                size = min(PIECE_BYTES // self._dtype.itemsize, max(len(values), self._length))
                if not self._workspace.reserve(size * self._dtype.itemsize):
                    break
                self._pieces.append(np.empty(size, self._dtype))
                self._room = size
            fitting = values[: self._room]
            start = len(self._pieces[-1]) - self._room
            self._pieces[-1][start : start + len(fitting)] = fitting
            self._room -= len(fitting)
            values = values[len(fitting) :]
        return values

    def _spill(self) -> None:
        # A memory piece is only ever left full when another is wanted, so all of them are full here.
        self._file = self._workspace._file()
        while self._pieces:
            piece = self._pieces.pop(0)
            self._write(piece)
            self._workspace.release(piece.nbytes)

    def _write(self, values: np.ndarray) -> None:
        assert self._file is not None  # noqa: S101
        with self._workspace._disk_room():
            self._file.write(values.data)


def drop_pages(*arrays: np.ndarray) -> None:
    """Let go of the mapped pages of arrays on disk; their content stays. Does nothing for arrays in memory."""
    for array in arrays:
        base: Any = array
        while base is not None and not isinstance(base, mmap.mmap):
            base = getattr(base, "base", None)
        if base is not None and hasattr(mmap, "MADV_DONTNEED"):
            base.madvise(mmap.MADV_DONTNEED)


def _allocate(file: int, size: int) -> None:
    """Give the file its blocks now: a store to a mapped hole of a full disk would kill the process (SIGBUS)."""
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(file, 0, size)
    else:
        os.truncate(file, size)
