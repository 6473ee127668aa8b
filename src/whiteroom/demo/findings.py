"""How good the audiences are: measured on what the service exported, against the truth and against chance.

Pure functions: no terminal, no server.
"""

from __future__ import annotations

from dataclasses import dataclass

from whiteroom.demo.data import DemoData
from whiteroom.demo.flow import Told


@dataclass(frozen=True)
class Size:
    """One exported audience.

    recall : share of the truth that it holds, 0 to 1; None where no truth is known.
    by_chance : the share that as many users drawn at random would hold, 0 to 1.
    """

    percent: int
    users: int
    relevance: float | None
    recall: float | None
    by_chance: float

    @property
    def lift(self) -> float | None:
        """How many times better than chance."""
        return None if self.recall is None else self.recall / self.by_chance


def measure(data: DemoData, told: Told) -> list[Size]:
    """The findings for each exported size, from small to large."""
    candidates = data.users - _known(data)
    return [
        Size(
            percent=audience.percent,
            users=len(audience.users),
            relevance=audience.relevance,
            recall=len(data.truth.intersection(audience.users)) / len(data.truth) if data.truth else None,
            by_chance=len(audience.users) / candidates,
        )
        for audience in told.audiences
    ]


def curve(data: DemoData, told: Told, points: int = 100) -> list[tuple[float, float]]:
    """Along the largest audience, best first: (share of all users taken, share of the truth found so far)."""
    if not data.truth:
        return []
    users = told.audiences[-1].users
    found = 0
    line = [(0.0, 0.0)]
    every = max(1, len(users) // points)
    for taken, user in enumerate(users, 1):
        found += user in data.truth
        if taken % every == 0 or taken == len(users):
            line.append((taken / data.users, found / len(data.truth)))
    return line


def _known(data: DemoData) -> int:
    """How many of the users are seeds, which an export leaves out."""
    import pyarrow as pa
    import pyarrow.compute as pc

    users = pc.unique(data.interactions["user_id"]).cast(pa.string())
    return int(pc.sum(pc.is_in(users, value_set=pa.array(data.seed, pa.string()))).as_py() or 0)
