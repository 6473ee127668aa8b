"""The status codes that data can end a job with, a sentence each; docs/status-codes.md is made of them."""

from __future__ import annotations

from typing import Final

STATUS_CODES: Final[dict[str, str]] = {
    "RESOURCE_ACCESS_DENIED": "The account does not own the bucket that a location names.",
    "INVALID_LOCATION": "An s3:// location is malformed, or names something that cannot be stored.",
    "INPUT_NOT_FOUND": "There is no file at the location of a table, a seed or another input.",
    "TABLE_NOT_FOUND": "The catalog holds no such table for the account.",
    "UNSUPPORTED_DATA_FORMAT": "The table is neither Parquet, CSV nor JSON Lines, or uses an unread feature.",
    "SCHEMA_MISMATCH": "A file's columns or types disagree with those that the catalog declares.",
    "INVALID_DATA_FILE": "A file is empty, truncated, half written, or holds values that cannot be read.",
    "INVALID_SEED_DATA": 'A seed is not JSON Lines with one string or integer "user_id" a line.',
    "SEED_SIZE_BELOW_MINIMUM": "A seed holds fewer distinct user ids than the least allowed.",
    "SEED_TOO_LARGE": "A seed holds more distinct user ids, or more bytes, than allowed.",
    "STORAGE_FULL": "The storage has no room left for the output; nothing of it was kept.",
    "STORAGE_UNAVAILABLE": "The storage did not answer, or refused the server.",
    "CATALOG_UNAVAILABLE": "The catalog did not answer, or refused the server.",
    "KEY_UNAVAILABLE": "A key is missing, is not the right one, or the data sealed with it were changed.",
}


class DataError(Exception):
    """Data cannot be used; `status_code` is one of `STATUS_CODES`, `message` a sentence for their owner.

    The message may name a location: what another account may be told instead is the room's to say.
    """

    def __init__(self, status_code: str, message: str) -> None:
        assert status_code in STATUS_CODES, status_code  # noqa: S101 - an unlisted code is a bug of ours
        super().__init__(message)
        self.status_code = status_code
        self.message = message
