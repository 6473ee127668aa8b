"""Files behind s3:// locations, as one account sees them: every access checks that the bucket is its own.

Where the bytes lie is one of two storages, local.py (the data directory) or remote.py (an S3 endpoint). Knows
no table format, and learns who owns a bucket from a function that it is given.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO, Final, Protocol
from urllib.parse import unquote

from whiteroom.data.errors import DataError

if TYPE_CHECKING:
    from whiteroom.config import Settings

MAX_KEY_BYTES: Final = 1024
_BUCKET: Final = re.compile(r"[a-z0-9](?:[a-z0-9-]|\.(?!\.)){1,61}[a-z0-9]")


@dataclass(frozen=True)
class FileInfo:
    """One file: its s3:// URI and its size in bytes."""

    uri: str
    size: int


class Storage(Protocol):
    """Bytes by account, bucket and key; raises DataError and never decides who may."""

    def has_bucket(self, account: str, bucket: str) -> bool:
        """Whether the account made such a bucket through the storage itself."""

    def make_bucket(self, account: str, bucket: str) -> None:
        """Make the bucket for the account, unless it is there."""

    def list(self, account: str, bucket: str, key: str) -> Iterator[tuple[str, int]]:
        """Key and size of the file `key`, or of all files below the directory `key`, if there are any."""

    def open(self, account: str, bucket: str, key: str) -> BinaryIO:
        """The file, seekable."""

    def write(self, account: str, bucket: str, key: str, chunks: Iterable[bytes]) -> None:
        """Store the chunks as one file, replacing what was there; whole or not at all."""


def parse_s3_uri(uri: str) -> tuple[str, str]:
    """Split `s3://bucket/key` into bucket and key; the key may be empty or end with "/".

    Raises ValueError with a sentence for what S3 forbids and for what would not be one place on every
    storage: relative segments (percent-encoded ones too), empty segments, backslashes, control characters.
    """
    if not uri.startswith("s3://"):
        raise ValueError("The location must begin with s3://.")
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    if not _BUCKET.fullmatch(bucket):
        raise ValueError("The location must name a bucket of 3 to 63 lower-case letters, digits, dots and hyphens.")
    try:
        if len(key.encode("utf-8")) > MAX_KEY_BYTES:
            raise ValueError(f"The key of the location is longer than {MAX_KEY_BYTES} bytes.")
    except UnicodeEncodeError:
        raise ValueError("The key of the location is not valid Unicode.") from None
    for text in (key, unquote(key), unquote(unquote(key))):
        if any(ord(character) < 0x20 or 0x7F <= ord(character) < 0xA0 for character in text):
            raise ValueError("The key of the location holds a control character.")
        if "\\" in text:
            raise ValueError("The key of the location holds a backslash.")
        if any(segment in (".", "..") for segment in text.split("/")):
            raise ValueError('The key of the location holds a segment "." or "..".')
    if "" in key.removesuffix("/").split("/") and key:
        raise ValueError('The key of the location holds an empty segment ("//").')
    return bucket, key


def _is_unicode(text: str) -> bool:
    """False for half characters, by which Python stands for the bytes of a file's name that are not UTF-8."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


class Files:
    """All buckets. `as_account` gives the only way to them."""

    def __init__(
        self,
        storage: Storage,
        owner: Callable[[str], str | None],
        adopt: Callable[[str, str], None] | None = None,
    ) -> None:
        self.storage = storage
        self.owner = owner
        self.adopt = adopt

    @classmethod
    def from_settings(
        cls,
        settings: Settings,
        owner: Callable[[str], str | None],
        adopt: Callable[[str, str], None] | None = None,
    ) -> Files:
        """Files of `settings.s3_endpoint_url`, else of DATA_DIR/s3.

        owner : gives the account that a bucket belongs to, None for an unknown bucket.
        adopt : called with (bucket, account) for a bucket that nobody owns and the account has made through
            the embedded S3 endpoint; registers it, unless somebody else was quicker.
        """
        from whiteroom.data.local import LocalStorage
        from whiteroom.data.remote import RemoteStorage

        if settings.s3_endpoint_url:
            return cls(RemoteStorage.from_settings(settings), owner, adopt)
        return cls(LocalStorage(settings.data_dir / "s3"), owner, adopt)

    def as_account(self, account: str) -> AccountFiles:
        """The files of one account's buckets."""
        if not re.fullmatch(r"\d{12}", account):
            raise ValueError(f"{account!r} is not an account id of 12 digits")
        return AccountFiles(self, account)


@dataclass(frozen=True)
class AccountFiles:
    """The files of one account. Each method raises DataError: INVALID_LOCATION for a malformed URI,
    RESOURCE_ACCESS_DENIED for a bucket that is not the account's, whether it exists or not."""

    _files: Files
    account: str

    def list(self, uri: str) -> list[FileInfo]:
        """The file at `uri`, or all files below it, sorted by URI.

        Below it, names that begin with "_" or "." are left out. Raises INPUT_NOT_FOUND when none is left.
        """
        bucket, key = self._locate(uri)
        directory = key if key.endswith("/") or not key else key + "/"
        found = [
            FileInfo(f"s3://{bucket}/{name}", size)
            for name, size in self._files.storage.list(self.account, bucket, key)
            if not any(part[:1] in ("_", ".") for part in name.removeprefix(directory).split("/")) or name == key
        ]
        if not all(_is_unicode(file.uri) for file in found):
            raise DataError("INVALID_LOCATION", f"A file at {uri} has a name that is not UTF-8.")
        if not found:
            raise DataError("INPUT_NOT_FOUND", f"There is no file at {uri}.")
        return sorted(found, key=lambda file: file.uri)

    def open(self, uri: str) -> BinaryIO:
        """The file at `uri` for reading, seekable. Raises INPUT_NOT_FOUND."""
        bucket, key = self._locate(uri, file=True)
        return self._files.storage.open(self.account, bucket, key)

    def write(self, uri: str, chunks: Iterable[bytes]) -> None:
        """Write one file, replacing what was there: whole or, when `chunks` or the storage fails, not at all.

        Raises STORAGE_FULL, STORAGE_UNAVAILABLE.
        """
        bucket, key = self._locate(uri, file=True)
        self._files.storage.write(self.account, bucket, key, chunks)

    def _locate(self, uri: str, *, file: bool = False) -> tuple[str, str]:
        try:
            bucket, key = parse_s3_uri(uri)
        except ValueError as error:
            raise DataError("INVALID_LOCATION", str(error)) from None
        if file and (not key or key.endswith("/")):
            raise DataError("INVALID_LOCATION", f"{uri} names a directory where a file is needed.")
        if not self._owns(bucket):
            raise DataError("RESOURCE_ACCESS_DENIED", f"The bucket {bucket} is not a bucket of account {self.account}.")
        return bucket, key

    def _owns(self, bucket: str) -> bool:
        owner = self._files.owner(bucket)
        if owner is None and self._files.storage.has_bucket(self.account, bucket):
            if self._files.adopt is None:
                return True
            self._files.adopt(bucket, self.account)
            owner = self._files.owner(bucket)
        return owner == self.account
