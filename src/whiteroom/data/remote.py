"""Buckets at an S3 endpoint, addressed by path.

pyarrow reads, because it seeks and reads ahead; boto3 lists and writes, because it aborts an upload whose
source fails, where closing pyarrow's stream would publish what was written. Knows no owner and no format.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import TYPE_CHECKING, Any, BinaryIO, Final, cast

from whiteroom.data.errors import DataError

if TYPE_CHECKING:
    from whiteroom.config import Settings

_PART_BYTES: Final = 16 * 1024 * 1024  # S3 allows 10,000 parts: files of up to 156 GiB
_FULL: Final = ("507", "InsufficientStorage", "QuotaExceeded", "XMinioStorageFull")


class RemoteStorage:
    """The storage at `endpoint_url`. Empty keys leave the credentials to the SDKs' usual places."""

    def __init__(self, endpoint_url: str, region: str, access_key_id: str, secret_access_key: str) -> None:
        self._endpoint_url = endpoint_url
        self._region = region
        self._access_key_id = access_key_id or None
        self._secret_access_key = secret_access_key or None

    @classmethod
    def from_settings(cls, settings: Settings) -> RemoteStorage:
        return cls(
            settings.s3_endpoint_url,
            settings.s3_region,
            settings.s3_access_key_id,
            settings.s3_secret_access_key,
        )

    def has_bucket(self, account: str, bucket: str) -> bool:  # noqa: ARG002
        """False: an endpoint of others does not tell us which account made a bucket."""
        return False

    def make_bucket(self, account: str, bucket: str) -> None:  # noqa: ARG002
        from botocore.exceptions import ClientError

        with _translated(f"s3://{bucket}/"):
            try:
                self._client.head_bucket(Bucket=bucket)
            except ClientError as error:
                if error.response["Error"]["Code"] not in ("404", "NoSuchBucket"):
                    raise
                self._client.create_bucket(Bucket=bucket)

    def list(self, account: str, bucket: str, key: str) -> Iterator[tuple[str, int]]:  # noqa: ARG002
        uri = f"s3://{bucket}/{key}"
        directory = key if key.endswith("/") or not key else f"{key}/"
        with _translated(uri):
            if key != directory:
                exact = self._client.list_objects_v2(Bucket=bucket, Prefix=key, MaxKeys=1)
                for entry in exact.get("Contents", ()):  # the least key with a prefix is the prefix itself
                    if entry["Key"] == key:
                        yield key, entry["Size"]
                        return
            pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=directory)
            for page in pages:
                for entry in page.get("Contents", ()):
                    if not entry["Key"].endswith("/"):  # some tools mark a directory by an empty object
                        yield entry["Key"], entry["Size"]

    def open(self, account: str, bucket: str, key: str) -> BinaryIO:  # noqa: ARG002
        with _translated(f"s3://{bucket}/{key}"):
            return cast(BinaryIO, self._filesystem.open_input_file(f"{bucket}/{key}"))

    def write(self, account: str, bucket: str, key: str, chunks: Iterable[bytes]) -> None:  # noqa: ARG002
        from boto3.s3.transfer import TransferConfig

        transfer = TransferConfig(multipart_threshold=_PART_BYTES, multipart_chunksize=_PART_BYTES, use_threads=False)
        source = _Source(chunks)
        with _translated(f"s3://{bucket}/{key}", source):
            self._client.upload_fileobj(source, bucket, key, Config=transfer)

    @cached_property
    def _client(self) -> Any:
        import boto3
        from botocore.config import Config

        return boto3.session.Session().client(
            "s3",
            endpoint_url=self._endpoint_url,
            region_name=self._region,
            aws_access_key_id=self._access_key_id,
            aws_secret_access_key=self._secret_access_key,
            config=Config(
                connect_timeout=5,
                read_timeout=60,
                retries={"mode": "standard", "max_attempts": 3},
                s3={"addressing_style": "path"},
                # Trailing checksums are AWS's own; other endpoints may store their framing as data.
                request_checksum_calculation="when_required",
                response_checksum_validation="when_required",
            ),
        )

    @cached_property
    def _filesystem(self) -> Any:
        from pyarrow.fs import S3FileSystem

        scheme, _, address = self._endpoint_url.rstrip("/").rpartition("://")
        return S3FileSystem(
            access_key=self._access_key_id,
            secret_key=self._secret_access_key,
            region=self._region,
            scheme=scheme or "https",
            endpoint_override=address,
            connect_timeout=5,
            request_timeout=60,
        )


class _Source(io.RawIOBase):
    """Chunks as a file that boto3 can read; remembers the error that the chunks ended with."""

    def __init__(self, chunks: Iterable[bytes]) -> None:
        self._chunks = iter(chunks)
        self._rest = b""
        self.error: BaseException | None = None

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1, /) -> bytes:
        parts, missing = [self._rest], size - len(self._rest)
        while size < 0 or missing > 0:
            try:
                chunk = next(self._chunks)
            except StopIteration:
                break
            except BaseException as error:
                self.error = error
                raise
            parts.append(chunk)
            missing -= len(chunk)
        content = b"".join(parts)
        if size < 0:
            self._rest = b""
            return content
        self._rest = content[size:]
        return content[:size]


@contextmanager
def _translated(uri: str, source: _Source | None = None) -> Iterator[None]:
    """Turn the SDKs' errors into ours; those of the source pass as they are."""
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        yield
    except FileNotFoundError as error:
        if source and source.error:
            raise
        raise DataError("INPUT_NOT_FOUND", f"There is no file at {uri}.") from error
    except (ClientError, BotoCoreError, OSError) as error:
        if source and source.error:
            raise source.error from None
        response = getattr(error, "response", {})
        code = str(response.get("Error", {}).get("Code", type(error).__name__))
        if code in ("NoSuchBucket", "NoSuchKey", "404") and source is None:
            raise DataError("INPUT_NOT_FOUND", f"There is no file at {uri}.") from error
        if code in _FULL or response.get("ResponseMetadata", {}).get("HTTPStatusCode") == 507:
            raise DataError("STORAGE_FULL", f"There is no room to write {uri}.") from error
        raise DataError("STORAGE_UNAVAILABLE", f"The storage refused {uri}: {code}.") from error
