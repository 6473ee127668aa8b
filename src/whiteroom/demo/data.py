"""What a demo runs on, whether made up or the user's own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True)
class DemoData:
    """Interactions, a seed, and who else truly belongs to the audience where that is known.

    interactions : columns user_id, item_id (string or int64) and timestamp (int64, Unix seconds).
    users, items : how many distinct ones the interactions hold.
    seed : ids given to the service, as strings.
    truth : ids not in the seed that an ideal service would put first; empty where nothing is known.
    truth_is : what `truth` is, for the report ("the rest of the true audience").
    about : what to tell of the data before the flow, a line each.
    """

    interactions: pa.Table
    users: int
    items: int
    seed: list[str]
    truth: frozenset[str]
    truth_is: str
    about: tuple[str, ...]
