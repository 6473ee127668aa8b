"""Encryption at rest: the server's key, the keys that `kmsKeyArn` names, and encrypted files.

Knows no account, no resource and no database: callers say what sealed bytes belong to with a `context`.

    server key --seals--> access key secrets
               --seals--> wrapping key of a kmsKeyArn --wraps--> data key of a resource --encrypts--> files

Removing a wrapping key makes everything under it unreadable for good. All ciphers are AES-256-GCM.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import io
import json
import os
import secrets
import struct
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Final, Self, cast

from whiteroom.data.errors import DataError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    from whiteroom.config import Settings

KEY_BYTES: Final = 32
NONCE_BYTES: Final = 12
TAG_BYTES: Final = 16


class SecretBox:
    """Seals small secrets under one 32-byte key."""

    def __init__(self, key: bytes) -> None:
        if len(key) != KEY_BYTES:
            raise _unavailable(f"The server key has {len(key)} bytes; it must have {KEY_BYTES}.")
        self._key = key

    @classmethod
    def from_settings(cls, settings: Settings) -> SecretBox:
        """The box of `settings.server_key`, else of DATA_DIR/keys/server.key, which is made when absent."""
        if settings.server_key:
            return cls(_decode(settings.server_key, "the setting server_key"))
        path = settings.data_dir / "keys" / "server.key"
        fresh = base64.b64encode(secrets.token_bytes(KEY_BYTES)) + b"\n"
        return cls(_decode(_read_or_create(path, fresh).decode("latin-1"), str(path)))

    def seal(self, secret: bytes, *, context: bytes) -> bytes:
        """Encrypt `secret`; only `open` with the same key and `context` gives it back."""
        nonce = secrets.token_bytes(NONCE_BYTES)
        return nonce + _cipher(self._key).encrypt(nonce, secret, context)

    def open(self, sealed: bytes, *, context: bytes) -> bytes:
        """Decrypt what `seal` gave. Raises DataError KEY_UNAVAILABLE when key, context or bytes differ."""
        from cryptography.exceptions import InvalidTag

        if len(sealed) >= NONCE_BYTES + TAG_BYTES:
            try:
                return _cipher(self._key).decrypt(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], context)
            except InvalidTag:
                pass
        raise _unavailable(
            "A secret cannot be decrypted: it was changed, or the server key is not the one that sealed it."
        )


class KeyRing:
    """Wrapping keys, one for each `kmsKeyArn`, as files sealed by the server key.

    A file's name is the SHA-256 of the ARN and its content names the ARN, so an operator can find and remove
    the key of one ARN.
    """

    def __init__(self, directory: Path, box: SecretBox) -> None:
        self._directory = directory
        self._box = box

    @classmethod
    def from_settings(cls, settings: Settings) -> KeyRing:
        """The ring under DATA_DIR/keys/kms."""
        return cls(settings.data_dir / "keys" / "kms", SecretBox.from_settings(settings))

    def new_data_key(self, kms_key_arn: str) -> tuple[bytes, bytes]:
        """A fresh 32-byte data key, plain and wrapped; the ARN's wrapping key is made on its first use."""
        sealed = self._box.seal(secrets.token_bytes(KEY_BYTES), context=_ring_context(kms_key_arn))
        document = {"kmsKeyArn": kms_key_arn, "sealedKey": base64.b64encode(sealed).decode("ascii")}
        content = _read_or_create(self.path(kms_key_arn), json.dumps(document, indent=2).encode() + b"\n")
        plain = secrets.token_bytes(KEY_BYTES)
        return plain, self._wrapping(kms_key_arn, content).seal(plain, context=b"data key")

    def unwrap(self, kms_key_arn: str, wrapped: bytes) -> bytes:
        """The plain data key. Raises DataError KEY_UNAVAILABLE when the wrapping key is gone or another."""
        try:
            content = self.path(kms_key_arn).read_bytes()
        except OSError as error:
            raise _unavailable(f"The key {kms_key_arn} is not in the key ring: {error.strerror}.") from error
        return self._wrapping(kms_key_arn, content).open(wrapped, context=b"data key")

    def path(self, kms_key_arn: str) -> Path:
        """The file of the ARN's wrapping key."""
        return self._directory / (hashlib.sha256(kms_key_arn.encode()).hexdigest() + ".json")

    def _wrapping(self, kms_key_arn: str, content: bytes) -> SecretBox:
        try:
            sealed = base64.b64decode(json.loads(content)["sealedKey"], validate=True)
        except (ValueError, KeyError, TypeError) as error:
            raise _unavailable(f"The key file {self.path(kms_key_arn)} is damaged.") from error
        return SecretBox(self._box.open(sealed, context=_ring_context(kms_key_arn)))


# An encrypted file: header, then chunks. The file's own key is HKDF(data key, salt of the header), so one
# data key serves any number of files. A chunk's nonce is its number and a flag that only the last one carries
# (the STREAM construction of Hoang, Reyhanitabar, Rogaway, Vizar, "Online authenticated-encryption and its
# nonce-reuse misuse-resistance", 2015): chunks that were moved, dropped, appended or changed do not decrypt.
_HEADER = struct.Struct(">8sI16s")  # magic, plain bytes in a chunk, salt
_MAGIC: Final = b"WRENC\x00\x00\x01"
_CHUNK: Final = 256 * 1024
_MAX_CHUNK: Final = 16 * 1024 * 1024


def open_encrypted(path: Path, mode: str, key: bytes) -> BinaryIO:
    """Open an encrypted file for reading ("rb": seekable, any order) or writing ("wb": front to back).

    Memory is bounded by one chunk (256 KiB). A file whose `with` block was left by an exception, or whose
    writer died, is unfinished and cannot be read. Reading checks the end of the file when it is opened and
    each chunk when it is read; damage of any kind raises DataError KEY_UNAVAILABLE.
    """
    if mode == "wb":
        return cast(BinaryIO, _EncryptedWriter(path, key))
    if mode == "rb":
        return cast(BinaryIO, io.BufferedReader(_EncryptedReader(path, key), _CHUNK))
    raise ValueError(f"mode must be 'rb' or 'wb', not {mode!r}")


class _EncryptedWriter(io.RawIOBase):
    def __init__(self, path: Path, key: bytes) -> None:
        salt = secrets.token_bytes(16)
        self._header = _HEADER.pack(_MAGIC, _CHUNK, salt)
        self._cipher = _file_cipher(key, salt)
        self._pending = bytearray()
        self._number = 0
        self._file = path.open("wb")
        self._file.write(self._header)

    def writable(self) -> bool:
        return True

    def write(self, data: Any, /) -> int:
        view = memoryview(data).cast("B")
        for start in range(0, len(view), _CHUNK):
            self._pending += view[start : start + _CHUNK]
            if len(self._pending) > _CHUNK:  # a full chunk waits, for it may be the last
                self._seal(bytes(self._pending[:_CHUNK]), last=False)
                del self._pending[:_CHUNK]
        return len(view)

    def _seal(self, plain: bytes, *, last: bool) -> None:
        self._file.write(self._cipher.encrypt(_nonce(self._number, last), plain, self._header))
        self._number += 1

    def close(self) -> None:
        if self.closed or self._file.closed:
            return
        try:
            self._seal(bytes(self._pending), last=True)
            self._file.flush()
            os.fsync(self._file.fileno())
        finally:
            self._abandon()

    def _abandon(self) -> None:
        self._file.close()
        super().close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: Any, value: Any, traceback: Any) -> None:
        self.close() if kind is None else self._abandon()

    def __del__(self) -> None:
        # IOBase would close, and so finish, a file that nobody said was complete.
        if not self.closed and hasattr(self, "_file"):
            self._abandon()


class _EncryptedReader(io.RawIOBase):
    def __init__(self, path: Path, key: bytes) -> None:
        self._path = path
        self._position = 0
        self._held: tuple[int, bytes] = (-1, b"")
        self._file = path.open("rb")
        try:
            self._header = self._file.read(_HEADER.size)
            if len(self._header) < _HEADER.size or not self._header.startswith(_MAGIC):
                raise self._damaged("it is not an encrypted file of ours")
            _, self._chunk, salt = _HEADER.unpack(self._header)
            body = self._file.seek(0, os.SEEK_END) - _HEADER.size
            if not 0 < self._chunk <= _MAX_CHUNK or body < TAG_BYTES:
                raise self._damaged("it is truncated")
            self._chunks = -(-body // (self._chunk + TAG_BYTES))
            self._size = body - self._chunks * TAG_BYTES
            self._cipher = _file_cipher(key, salt)
            self._load(self._chunks - 1)
        except BaseException:
            self._file.close()
            raise

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._size}[whence]
        if base + offset < 0:
            raise ValueError("negative seek position")
        self._position = base + offset
        return self._position

    def readinto(self, buffer: Any, /) -> int:
        if self._position >= self._size:
            return 0
        number, start = divmod(self._position, self._chunk)
        plain = self._load(number)[start : start + len(buffer)]
        buffer[: len(plain)] = plain
        self._position += len(plain)
        return len(plain)

    def _load(self, number: int) -> bytes:
        from cryptography.exceptions import InvalidTag

        if self._held[0] != number:
            self._file.seek(_HEADER.size + number * (self._chunk + TAG_BYTES))
            sealed = self._file.read(self._chunk + TAG_BYTES)
            last = number == self._chunks - 1
            try:
                self._held = (number, self._cipher.decrypt(_nonce(number, last), sealed, self._header))
            except (InvalidTag, ValueError) as error:
                raise self._damaged("its key is another one, or it was truncated or changed") from error
        return self._held[1]

    def _damaged(self, why: str) -> DataError:
        return _unavailable(f"The encrypted file {self._path.name} cannot be read: {why}.")

    def close(self) -> None:
        if hasattr(self, "_file"):
            self._file.close()
        super().close()


def _unavailable(message: str) -> DataError:
    return DataError("KEY_UNAVAILABLE", message)


def _cipher(key: bytes) -> AESGCM:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    return AESGCM(key)


def _file_cipher(key: bytes, salt: bytes) -> AESGCM:
    """The cipher of one file: its key is HKDF-SHA256 (RFC 5869) of the data key and the file's own salt."""
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.kdf.hkdf import HKDF

    if len(key) != KEY_BYTES:
        raise ValueError(f"a data key has {KEY_BYTES} bytes, not {len(key)}")
    hkdf = HKDF(algorithm=SHA256(), length=KEY_BYTES, salt=salt, info=b"whiteroom encrypted file")
    return _cipher(hkdf.derive(key))


def _nonce(number: int, last: bool) -> bytes:
    return number.to_bytes(NONCE_BYTES - 1, "big") + bytes([last])


def _ring_context(kms_key_arn: str) -> bytes:
    return b"kmsKeyArn " + kms_key_arn.encode()


def _decode(text: str, where: str) -> bytes:
    try:
        key = base64.b64decode(text.strip(), validate=True)
    except (binascii.Error, ValueError) as error:
        raise _unavailable(f"The server key in {where} is not base64.") from error
    if len(key) != KEY_BYTES:
        raise _unavailable(f"The server key in {where} has {len(key)} bytes; it must be base64 of {KEY_BYTES} bytes.")
    return key


def _read_or_create(path: Path, fresh: bytes) -> bytes:
    """The file's content; when absent, it is made with `fresh`, whole, once, whoever else tries.

    A complete temporary file is linked to its name: of two processes one link succeeds, and both then read
    the same key. The file and its directory are on disk before anything can be sealed with the key.
    """
    try:
        return path.read_bytes()
    except FileNotFoundError:
        pass
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:  # noqa: PTH123
            file.write(fresh)
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(temporary, path)
        except FileExistsError:
            return path.read_bytes()
    finally:
        temporary.unlink(missing_ok=True)
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
    return fresh
