"""Buckets as directories: ROOT/<account>/<bucket>/<key>.

No symbolic link is followed below an account's directory: each segment is opened relative to the one before,
so that nothing a client leaves there can lead out of it, not even by a race. Knows no owner and no format.
"""

from __future__ import annotations

import errno
import fcntl
import os
import secrets
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, Final

from whiteroom.data.errors import DataError

_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class LocalStorage:
    """The storage under `root`; made on the first write."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._incoming = root / ".incoming"

    def has_bucket(self, account: str, bucket: str) -> bool:
        try:
            return stat.S_ISDIR((self._root / account / bucket).lstat().st_mode)
        except OSError:
            return False

    def make_bucket(self, account: str, bucket: str) -> None:
        with _writing(f"s3://{bucket}/"), self._directory(account, [bucket], create=True):
            pass

    def list(self, account: str, bucket: str, key: str) -> Iterator[tuple[str, int]]:
        *parents, name = [bucket, *filter(None, key.split("/"))]
        with _reading(f"s3://{bucket}/{key}"), self._directory(account, parents) as parent:
            found = os.stat(name, dir_fd=parent, follow_symlinks=False)
            if stat.S_ISREG(found.st_mode) and not key.endswith("/"):
                yield key, found.st_size
            elif stat.S_ISDIR(found.st_mode):
                yield from _walk(parent, name, key)

    def open(self, account: str, bucket: str, key: str) -> BinaryIO:
        *parents, name = [bucket, *key.split("/")]
        # O_NONBLOCK: a named pipe must not hold the reader before it is seen to be none of ours.
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
        with _reading(f"s3://{bucket}/{key}"), self._directory(account, parents) as parent:
            descriptor = os.open(name, flags, dir_fd=parent)
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                os.close(descriptor)
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
            return os.fdopen(descriptor, "rb")

    def write(self, account: str, bucket: str, key: str, chunks: Iterable[bytes]) -> None:
        uri = f"s3://{bucket}/{key}"
        *parents, name = [bucket, *key.split("/")]
        with _writing(uri):
            self._incoming.mkdir(parents=True, exist_ok=True)
            self._sweep()
            temporary = self._incoming / secrets.token_hex(16)
            file = temporary.open("xb")
        try:
            with file:
                fcntl.flock(file, fcntl.LOCK_EX)
                for chunk in chunks:
                    with _writing(uri):
                        file.write(chunk)
                with _writing(uri):
                    file.flush()
                    os.fsync(file.fileno())
                    with self._directory(account, parents, create=True) as parent:
                        os.rename(temporary, name, dst_dir_fd=parent)
                        os.fsync(parent)
        finally:
            with _writing(uri):
                temporary.unlink(missing_ok=True)

    def _sweep(self) -> None:
        """Remove what killed writers left: an incoming file that nobody holds locked."""
        for leftover in self._incoming.iterdir():
            try:
                with leftover.open("rb") as file:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    if file.seek(0, os.SEEK_END):  # an empty one may be about to be locked
                        leftover.unlink(missing_ok=True)
            except (BlockingIOError, FileNotFoundError):
                continue

    @contextmanager
    def _directory(self, account: str, segments: Iterable[str], *, create: bool = False) -> Iterator[int]:
        """A descriptor of the directory ROOT/account/segments..., without following a link on the way."""
        if create:
            (self._root / account).mkdir(parents=True, exist_ok=True)
        here = os.open(self._root / account, _DIRECTORY)
        try:
            for segment in segments:
                if create:
                    with suppress(FileExistsError):
                        os.mkdir(segment, dir_fd=here)
                below = os.open(segment, _DIRECTORY, dir_fd=here)
                os.close(here)
                here = below
            yield here
        finally:
            os.close(here)


def _walk(parent: int, name: str, key: str) -> Iterator[tuple[str, int]]:
    top = f"{key.rstrip('/')}/" if key else ""
    for path, _, names, here in os.fwalk(name, onerror=_raise, follow_symlinks=False, dir_fd=parent):
        below = path[len(name) + 1 :]
        for file in names:
            found = os.stat(file, dir_fd=here, follow_symlinks=False)
            if stat.S_ISREG(found.st_mode):
                yield f"{top}{below}/{file}" if below else f"{top}{file}", found.st_size


def _raise(error: OSError) -> None:
    raise error


@contextmanager
def _reading(uri: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG, errno.ENXIO):
            raise DataError("INPUT_NOT_FOUND", f"There is no file at {uri}.") from error
        raise _refused(uri, error) from error


@contextmanager
def _writing(uri: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise DataError("STORAGE_FULL", f"There is no room to write {uri}.") from error
        if error.errno in (errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.ENAMETOOLONG):
            raise DataError("INVALID_LOCATION", f"{uri} cannot be a file: {_reason(error)}.") from error
        raise _refused(uri, error) from error


def _refused(uri: str, error: OSError) -> DataError:
    return DataError("STORAGE_UNAVAILABLE", f"The storage refused {uri}: {_reason(error)}.")


def _reason(error: OSError) -> str:
    return (error.strerror or "unknown error").lower()
