"""LAL-Eval: audiences with a known truth, seeds drawn from them, and how well a ranking finds the rest.

Three kinds of audience, each of whose truth is kept out of the training data:

- item: the users who have an item; all interactions with the items asked about are removed from training;
- attr: the users who share an attribute, which is never trained on;
- temporal: the users who first buy an item after a date; training stops at that date.

A seed is a random part of the truth; a method ranks all other users; recall@20 % is the share of the rest of the
truth in the first fifth of the ranking (a random ranking gives 0.2). Every draw is seeded by the CRC-32 of its
name, so that everybody who follows the protocol draws the same. Knows no method.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import scipy.sparse as sp

SEED_SIZES = (25, 100, 500)
REPETITIONS = 2
LEFT_TO_FIND = 50
"""Users of the truth that a seed must leave."""
HELD_OUT_ITEMS = 40
TEMPORAL_ITEMS = 60
CHOSEN_ON = "v1"
"""The tag of the audiences on which methods are chosen; other tags draw fresh audiences, for reports."""
CUTS = {CHOSEN_ON: datetime(2011, 9, 1, tzinfo=UTC)}
FRESH_CUT = datetime(2011, 7, 15, tzinfo=UTC)


@dataclass(frozen=True)
class Job:
    """Find the rest of an audience from a part: row numbers of X."""

    audience: str
    seed: np.ndarray
    truth: np.ndarray


@dataclass(frozen=True)
class Block:
    """One training matrix (csr float32, users x items, ones) and its jobs.

    `times` has the second of the last interaction of each pair of X, in the order of X.data; None where the data
    have no times.
    """

    name: str
    X: sp.csr_matrix
    jobs: tuple[Job, ...]
    times: np.ndarray | None = None


def data_directory() -> Path:
    """`WHITEROOM_DATA`, else ../shared/data beside the repository."""
    return Path(os.environ.get("WHITEROOM_DATA") or Path(__file__).parents[2] / "shared" / "data")


def blocks(tag: str, *, data: Path | None = None, sizes: Sequence[int] = SEED_SIZES) -> Iterator[Block]:
    """The blocks whose data are present in `data`, one by one."""
    data = data or data_directory()
    if (data / "ml1m").is_dir():
        yield from _static("ml1m", data, tag, sizes, kinds=("item", "attr"))
    if (data / "twitch").is_dir():
        # Twitch items hold one-hot groups: a held-out one follows from its siblings, so only attributes are asked.
        yield from _static("twitch", data, tag, sizes, kinds=("attr",))
    if (data / "online_retail").is_dir():
        yield from _static("online_retail", data, tag, sizes, kinds=("item",))
        yield _temporal("online_retail", data, tag, sizes)


@dataclass(frozen=True)
class Quality:
    """How well a ranking of all users outside the seed finds the truth outside it; ties at random."""

    recall: float
    """Share of the truth in the first 20 % of the ranking; random: 0.2."""
    auc: float
    lift: float
    """How much denser the truth is in the first 1 % of the ranking than in all of it."""


def quality(scores: np.ndarray, job: Job) -> Quality:
    wanted = _ranked(scores, job)
    n, found = len(wanted), int(wanted.sum())
    ranks = np.flatnonzero(wanted)
    auc = 1 - (ranks.sum() - found * (found - 1) / 2) / (found * (n - found))
    lift = float(wanted[: round(0.01 * n)].mean() * n / found)
    return Quality(float(wanted[: round(0.2 * n)].sum() / found), float(auc), lift)


def recall(scores: np.ndarray, job: Job, top: float = 0.2) -> float:
    """Share of the truth outside the seed among the first `top` of all users outside the seed; ties at random."""
    wanted = _ranked(scores, job)
    return float(wanted[: round(top * len(wanted))].sum() / wanted.sum())


def _ranked(scores: np.ndarray, job: Job) -> np.ndarray:
    """Whether each user outside the seed, best first, belongs to the truth."""
    outside = np.ones(len(scores), bool)
    outside[job.seed] = False
    wanted = np.zeros(len(scores), bool)
    wanted[job.truth] = True
    scores, wanted = np.asarray(scores, np.float64)[outside], wanted[outside]
    ties = _random("ties", job.audience, len(job.seed)).random(len(scores))
    return np.asarray(wanted[np.lexsort((ties, -scores))])


def _random(*name: object) -> np.random.Generator:
    return np.random.default_rng(zlib.crc32("|".join(map(str, name)).encode()))


def _matrix(users: np.ndarray, items: np.ndarray, times: np.ndarray) -> tuple[sp.csr_matrix, np.ndarray, np.ndarray]:
    """(users x items with the second of the last interaction of each pair, user ids, item ids)."""
    user_ids, rows = np.unique(users, return_inverse=True)
    item_ids, columns = np.unique(items, return_inverse=True)
    order = np.lexsort((times, columns, rows))
    rows, columns, times = rows[order], columns[order], times[order]
    last = np.append((np.diff(rows) != 0) | (np.diff(columns) != 0), True)
    shape = (len(user_ids), len(item_ids))
    return sp.csr_matrix((times[last], (rows[last], columns[last])), shape=shape), user_ids, item_ids


def _block(name: str, when: sp.csr_matrix, jobs: tuple[Job, ...]) -> Block:
    when.sort_indices()
    X = sp.csr_matrix((np.ones(when.nnz, np.float32), when.indices, when.indptr), shape=when.shape)
    return Block(name, X, jobs, when.data if np.ptp(when.data) else None)


def _read(path: Path) -> dict[str, np.ndarray]:
    table = pq.read_table(path)
    return {name: table[name].to_numpy() for name in table.column_names}


def _times(columns: dict[str, np.ndarray]) -> np.ndarray:
    # Not 0: a stored zero would be no entry of the matrix.
    return columns["timestamp"].astype(np.float64) if "timestamp" in columns else np.ones(len(columns["user_id"]))


def _static(name: str, data: Path, tag: str, sizes: Sequence[int], kinds: Sequence[str]) -> Iterator[Block]:
    columns = _read(data / name / "interactions.parquet")
    X, user_ids, item_ids = _matrix(columns["user_id"], columns["item_id"], _times(columns))
    least = 100 if X.shape[0] < 5000 else 150
    held_out = _items_to_find(X, name, tag, least)
    by_item = X.tocsc()
    truths = {
        f"item={item_ids[j]}": np.sort(by_item.indices[by_item.indptr[j] : by_item.indptr[j + 1]]) for j in held_out
    }
    if "attr" in kinds:
        truths |= _attribute_truths(name, _read(data / name / "users.parquet"), user_ids, least)
    X = by_item[:, np.setdiff1d(np.arange(X.shape[1]), held_out)].tocsr()
    alive = np.flatnonzero(np.diff(X.indptr))
    row = np.full(len(user_ids), -1)
    row[alive] = np.arange(len(alive))
    X = X[alive]
    X = X[:, np.flatnonzero(np.bincount(X.indices, minlength=X.shape[1]))].tocsr()
    truths = {label: np.sort(row[users][row[users] >= 0]) for label, users in truths.items()}
    for kind in kinds:
        chosen = {k: v for k, v in truths.items() if k.startswith("item=") == (kind == "item")}
        yield _block(f"{name} {kind}", X, _jobs(name, tag, chosen, sizes))


def _items_to_find(X: sp.csr_matrix, name: str, tag: str, least: int) -> np.ndarray:
    """One item at random from each of 40 strata of the items by audience size, in [least, 15 % of the users]."""
    size = np.bincount(X.indices, minlength=X.shape[1])
    fit = np.flatnonzero((size >= least) & (size <= 0.15 * X.shape[0]))
    fit = fit[np.argsort(size[fit], kind="stable")]
    rng = _random("items", name, tag)
    return np.sort([int(rng.choice(stratum)) for stratum in np.array_split(fit, min(HELD_OUT_ITEMS, len(fit)))])


def _attribute_truths(
    name: str, people: dict[str, np.ndarray], user_ids: np.ndarray, least: int
) -> dict[str, np.ndarray]:
    groups: dict[str, Any] = {}
    if name == "ml1m":
        for column in ("gender", "age", "occupation"):
            groups |= {f"{column}={value}": people[column] == value for value in np.unique(people[column])}
    if name == "twitch":
        language, mature = people["language"], people["mature"].astype(bool)
        groups |= {f"language={value}": language == value for value in np.unique(language)}
        groups["partner"] = people["partner"].astype(bool)
        groups["views_top5%"] = people["views"] >= np.quantile(people["views"], 0.95)
        groups["account_oldest10%"] = people["days"] >= np.quantile(people["days"], 0.9)
        groups["account_newest10%"] = people["days"] <= np.quantile(people["days"], 0.1)
        groups |= {f"{value}&mature": (language == value) & mature for value in ("DE", "ENGB", "FR", "ES")}
    truths = {label: np.flatnonzero(np.isin(user_ids, people["user_id"][members])) for label, members in groups.items()}
    return {label: rows for label, rows in truths.items() if least <= len(rows) <= 0.35 * len(user_ids)}


def _temporal(name: str, data: Path, tag: str, sizes: Sequence[int], least: int = 80) -> Block:
    columns = _read(data / name / "interactions.parquet")
    before = columns["timestamp"] < CUTS.get(tag, FRESH_CUT).timestamp()
    X, user_ids, item_ids = _matrix(*(columns[name][before] for name in ("user_id", "item_id", "timestamp")))
    owned = X.tocsc()
    later_users, later_items = columns["user_id"][~before], columns["item_id"][~before]
    known = np.isin(later_users, user_ids)
    later_users, later_items = np.searchsorted(user_ids, later_users[known]), later_items[known]
    truths: dict[str, np.ndarray] = {}
    for item in np.unique(later_items):
        buyers = np.unique(later_users[later_items == item])
        at = np.searchsorted(item_ids, item)
        if at < len(item_ids) and item_ids[at] == item:
            buyers = np.setdiff1d(buyers, owned.indices[owned.indptr[at] : owned.indptr[at + 1]])
        if len(buyers) >= least:
            truths[f"conv={item}"] = buyers
    largest = sorted(truths, key=lambda label: -len(truths[label]))[:TEMPORAL_ITEMS]
    # The cut already makes these audiences fresh; their names carry no tag.
    return _block(f"{name} temporal", X, _jobs(f"{name}_t", CHOSEN_ON, {k: truths[k] for k in largest}, sizes))


def _jobs(name: str, tag: str, truths: dict[str, np.ndarray], sizes: Sequence[int]) -> tuple[Job, ...]:
    jobs = []
    for label, truth in truths.items():
        for repetition in range(REPETITIONS):
            fresh = () if tag == CHOSEN_ON else (tag,)
            drawn = _random("seed", name, label, repetition, *fresh).permutation(truth)
            jobs += [Job(label, np.sort(drawn[:size]), truth) for size in sizes if size <= len(truth) - LEFT_TO_FIND]
    return tuple(jobs)
