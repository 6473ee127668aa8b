"""The attacks of the field on the lookalike engine, measured: `python -m benchmarks.privacy [--quick]`.

(A) The seed's provider tells from its figures whether one id is a user of the model. (B) The model's owner tells from
an exported audience who is in the seed. (C) Whoever reads the model's item side tells who was in its training data;
and the seed's provider tells it from its figures. Beside them: what the noise costs in accuracy, and what it was
calibrated on. Every figure is a mean over audiences with its 95 % interval. docs/lookalike-privacy.md explains them.

Datasets are those of WHITEROOM_DATA, or a generated population where there are none.
"""

from __future__ import annotations

import argparse
import secrets
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import pyarrow as pa
import scipy.sparse as sp
from scipy.stats import rankdata

from benchmarks import laleval
from whiteroom.engines.lookalike import Lookalike
from whiteroom.engines.lookalike.heads import fit_seed
from whiteroom.engines.lookalike.metrics import Figures, LeftOut, figures, left_out_users
from whiteroom.engines.lookalike.privacy import COARSE, FINE, FINE_FROM, KEY_BYTES, Cells, Noise, cells_for, loss

EPSILONS = (0.5, 1.0, 2.0)
TOP = 0.2
TOLD_AT = (0.01, 0.05, 0.1, 0.2)
"""Sizes, as shares of the users, at which the attacker reads relevance."""
LIKELIHOOD_TRIALS = 20_000


@dataclass(frozen=True)
class Estimate:
    """A mean and its 95 % interval (normal, over pairs or audiences)."""

    value: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float] | np.ndarray) -> Estimate:
        values = np.asarray(values, np.float64)
        half = 1.96 * values.std(ddof=1) / np.sqrt(len(values)) if len(values) > 1 else float("nan")
        return cls(float(values.mean()), float(values.mean() - half), float(values.mean() + half))

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


@dataclass(frozen=True)
class Attack:
    """advantage : true positive rate less false positive rate at a threshold chosen on other trials. auc : its AUC."""

    advantage: Estimate
    auc: Estimate


@dataclass(frozen=True)
class Neighbours:
    """What one seed looks like with and without one user."""

    size: int
    kind: str
    without: LeftOut
    including: LeftOut


@dataclass(frozen=True)
class Subject:
    """A fitted model and LAL-Eval's jobs in its own row numbers."""

    name: str
    model: Lookalike
    jobs: tuple[laleval.Job, ...]

    @classmethod
    def of(cls, block: laleval.Block) -> Subject:
        model = fitted(block.X, np.arange(block.X.shape[0]))
        row = np.empty(block.X.shape[0], np.int64)
        row[np.array(model.user_ids_.to_pylist(), np.int64)] = np.arange(model.n_users_)
        jobs = (laleval.Job(job.audience, np.sort(row[job.seed]), np.sort(row[job.truth])) for job in block.jobs)
        return cls(block.name, model, tuple(jobs))


def fitted(X: sp.csr_matrix, users: np.ndarray) -> Lookalike:
    """A model of these rows of X; the row numbers are the user ids."""
    pairs = X[users].tocoo()
    return Lookalike(threads=1).fit(pa.table({"user_id": users[pairs.row], "item_id": pairs.col}))


def left_out(model: Lookalike, rows: np.ndarray) -> LeftOut:
    places = fit_seed(model.space_, rows).left_out()
    return left_out_users(rows, *places, top=TOP, random_state=model.random_state)


def neighbours(
    model: Lookalike, jobs: Sequence[laleval.Job], rng: np.random.Generator, *, each: int = 1
) -> Iterator[Neighbours]:
    """Of every job's seed, `each` pairs that differ in one user of each kind.

    The kinds: another user of the audience, anybody outside the seed, or one taken out of the seed.
    """
    for job in jobs:
        whole = left_out(model, job.seed)
        outside = np.setdiff1d(np.arange(model.n_users_), job.seed)
        pools = {"alike": np.setdiff1d(job.truth, job.seed), "anybody": outside, "member": job.seed}
        for kind, pool in pools.items():
            for user in rng.choice(pool, min(each, len(pool)), replace=False):
                if kind == "member":
                    yield Neighbours(len(job.seed), kind, left_out(model, np.setdiff1d(job.seed, [user])), whole)
                else:
                    more = np.sort(np.append(job.seed, user))
                    yield Neighbours(len(job.seed), kind, whole, left_out(model, more))


# --- (A) the seed's provider and one id ------------------------------------------------------------------

OUTPUTS = ("minimum check", "recall", *(f"relevance at {share:.0%}" for share in TOLD_AT))


def answers(told: LeftOut, epsilon: float | None, least: int, trials: int) -> np.ndarray:
    """All that the seed's provider is told, under fresh keys: float64, trials x OUTPUTS.

    `least` is the minimum of matches where it is told most: just met by the larger of two neighbours without noise.
    Recall and relevance are told even where the check fails, which gives the attacker more than it gets.
    """
    if epsilon is None:
        return np.tile(_outputs(figures(told), len(told.position) >= least), (trials, 1))
    rows = []
    for _ in range(trials):
        noise = Noise(Fraction(str(epsilon)), secrets.token_bytes(KEY_BYTES))
        passes = noise.matched(len(told.position)).at_least >= least - noise.slack
        rows.append(_outputs(noise.figures(told), passes))
    return np.array(rows)


def _outputs(told: Figures, passes: bool) -> np.ndarray:
    curve = told.curve.at(np.array(TOLD_AT)) if told.curve else np.zeros(len(TOLD_AT))
    return np.array([passes, told.recall, *curve])


def distinguish(pairs: Sequence[Neighbours], epsilon: float | None, trials: int) -> dict[str, Attack]:
    """How well the two seeds of each pair are told apart from one answer, by attackers who know the pair.

    Each attacker has seen half of the trials with their truth, and is judged on the others. "likelihood" knows both
    seeds' exact counts and reads the noisy counts themselves: nobody does better.
    """
    attackers: dict[str, list[tuple[float, float]]] = {name: [] for name in (*OUTPUTS, "all outputs", "likelihood")}
    for pair in pairs:
        least = len(pair.including.position)
        one, other = (answers(told, epsilon, least, trials) for told in (pair.without, pair.including))
        for column, name in enumerate(OUTPUTS):
            attackers[name].append(_threshold(one[:, column], other[:, column]))
        attackers["all outputs"].append(_logistic(one, other))
        if epsilon is None:
            differ = bool((one[0] != other[0]).any())  # the same every time: told apart with certainty or not at all
            attackers["likelihood"].append((float(differ), 0.5 + 0.5 * differ))
        else:
            attackers["likelihood"].append(likelihood(pair, epsilon, LIKELIHOOD_TRIALS))
    return {
        name: Attack(*(Estimate.of([one[k] for one in found]) for k in range(2))) for name, found in attackers.items()
    }


def likelihood(pair: Neighbours, epsilon: float, trials: int, questions: int = 1) -> tuple[float, float]:
    """(advantage, AUC) of the likelihood ratio of the noisy counts, from `questions` answers with fresh noise."""
    rng = np.random.default_rng(0)
    ratios = []
    for truth in (pair.without, pair.including):
        total = np.zeros(trials)
        for _ in range(questions):
            total += _log_ratio(truth, pair, epsilon, trials, rng)
        ratios.append(total)
    return float((ratios[1] > 0).mean() - (ratios[0] > 0).mean()), _auc(ratios[0], ratios[1])


def _log_ratio(truth: LeftOut, pair: Neighbours, epsilon: float, trials: int, rng: np.random.Generator) -> np.ndarray:
    """log P(answer | including) - log P(answer | without) of `trials` answers to `truth`."""
    worlds = (pair.without, pair.including)
    m, slack = [len(world.position) for world in worlds], Noise(Fraction(str(epsilon)), b"").slack
    error = _laplace(rng, 3 / epsilon, 20 * trials + 1000)
    error = error[np.abs(error) <= slack][:trials]
    about = len(truth.position) + error
    ratio = (np.abs(about - m[0]) - np.abs(about - m[1])) * epsilon / 3
    ratio[about - m[1] < -slack] = -np.inf
    ratio[about - m[0] > slack] = np.inf
    numbers, of = np.unique(about, return_inverse=True)
    is_fine = np.array([cells_for(int(number), epsilon) is FINE for number in numbers])[of]
    for cells in (COARSE, FINE):
        at = np.flatnonzero(is_fine == (cells is FINE))
        counts = [cells.counts(world) for world in (truth, *worlds)]
        for scale, own, without, including in zip(
            map(float, cells.scales(Fraction(str(epsilon)) * 2 / 3)), *counts, strict=True
        ):
            told = own + _laplace(rng, scale, len(at))
            ratio[at] += (np.abs(told - without) - np.abs(told - including)) / scale
    return ratio


def _laplace(rng: np.random.Generator, scale: float, size: int) -> np.ndarray:
    p = -np.expm1(-1 / scale)
    return rng.geometric(p, size) - rng.geometric(p, size)


def junk(pairs: Sequence[Neighbours], epsilon: float | None, trials: int, questions: int = 1) -> Attack:
    """The practical attack: ask for a seed, ask again with the id added, and see how the answers differ.

    Where the model does not know the id, only the noise differs. The attacker knows neither model nor pair; it has
    learned from other pairs what difference a known user makes. `questions` seeds of each kind (made different by
    ids that nobody has) are asked and averaged.
    """
    features = []
    for pair in pairs:
        least = len(pair.including.position)
        first, unknown, known = (
            np.mean([answers(told, epsilon, least, trials) for _ in range(questions)], axis=0)
            for told in (pair.without, pair.without, pair.including)
        )
        features.append([np.hstack([d, np.abs(d)]) for d in (unknown - first, known - first)])
    half = len(pairs) // 2
    found = []
    for seen, judged in ((features[:half], features[half:]), (features[half:], features[:half])):
        learned = _learn(*(np.concatenate([world[k] for world in seen]) for k in range(2)))
        cut = _best_cut(*(learned(np.concatenate([world[k] for world in seen])) for k in range(2)))
        for unknown, known in judged:
            one, other = learned(unknown), learned(known)
            found.append((float((other > cut).mean() - (one > cut).mean()), _auc(one, other)))
    return Attack(*(Estimate.of([one[k] for one in found]) for k in range(2)))


def _threshold(one: np.ndarray, other: np.ndarray) -> tuple[float, float]:
    """(advantage, AUC) of a threshold learned on the even trials and judged on the odd ones."""
    sign = 1 if other[::2].mean() >= one[::2].mean() else -1
    cut = _best_cut(sign * one[::2], sign * other[::2])
    one, other = sign * one[1::2], sign * other[1::2]
    return float((other > cut).mean() - (one > cut).mean()), _auc(one, other)


def _logistic(one: np.ndarray, other: np.ndarray) -> tuple[float, float]:
    learned = _learn(one[::2], other[::2])
    return _threshold(learned(one), learned(other))


def _learn(one: np.ndarray, other: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """A ridge-penalised logistic regression (Newton steps) that tells `other` from `one`: its scores."""
    X = np.concatenate([one, other])
    mean, spread = X.mean(axis=0), X.std(axis=0) + 1e-9
    y = np.repeat([0.0, 1.0], [len(one), len(other)])

    def columns(rows: np.ndarray) -> np.ndarray:
        return np.column_stack([(rows - mean) / spread, np.ones(len(rows))])

    Z, w = columns(X), np.zeros(X.shape[1] + 1)
    for _ in range(15):
        p = 1 / (1 + np.exp(-np.clip(Z @ w, -30, 30)))
        hessian = (Z.T * (p * (1 - p))) @ Z + np.eye(len(w))
        w += np.linalg.solve(hessian, Z.T @ (y - p) - w)
    return lambda rows: columns(rows) @ w


def _best_cut(one: np.ndarray, other: np.ndarray) -> float:
    """The cut with the largest share of `other` above it less the share of `one` above it."""
    values = np.unique(np.concatenate([one, other]))
    cuts = np.concatenate([[-np.inf], (values[:-1] + values[1:]) / 2])
    above = [1 - np.searchsorted(np.sort(sample), cuts, side="right") / len(sample) for sample in (one, other)]
    return float(cuts[np.argmax(above[1] - above[0])])


def _auc(one: np.ndarray, other: np.ndarray) -> float:
    ranks = rankdata(np.concatenate([one, other]))[len(one) :]
    return float((ranks.sum() - len(other) * (len(other) + 1) / 2) / (len(one) * len(other)))


# --- (B) the model's owner and the seed ------------------------------------------------------------------


def exported_membership(model: Lookalike, job: laleval.Job, share: float) -> dict[str, float]:
    """AUC of telling the seed's users from all others that an exported audience of `share` of the users leaves out.

    The owner ranks its users by their likeness to the exported ones: who is as alike and yet missing may be the seed.
    "found" is the share of the seed among as many suspects as the seed has users.
    """
    ids = model.user_ids_.take(pa.array(job.seed))
    ranking = model.rank(ids)
    exported = ranking.audience(max(1, round(share * model.n_users_)))
    suspicion = model.score(exported)
    in_seed = np.isin(np.arange(model.n_users_), job.seed)
    missing = np.ones(model.n_users_, bool)
    missing[model.match(exported)[0]] = False
    scores, truth = suspicion[missing], in_seed[missing]
    first = np.argsort(-scores)[: int(truth.sum())]
    return {"AUC": _auc(scores[~truth], scores[truth]), "found": float(truth[first].mean())}


# --- (C) the model and its training data -----------------------------------------------------------------


def model_membership(X: sp.csr_matrix, rng: np.random.Generator) -> float:
    """AUC of telling users whom the item side was learned from, from others, by how well it reconstructs their rows.

    Half of the users train. The attacker has the rows of all users and the model's item side.
    """
    shuffled = rng.permutation(np.flatnonzero(np.diff(X.indptr) >= 2))
    trained, others = np.sort(shuffled[: len(shuffled) // 2]), np.sort(shuffled[len(shuffled) // 2 :])
    model = fitted(X, trained)
    return _auc(-reconstruction_loss(model, X[others]), -reconstruction_loss(model, X[trained]))


def reconstruction_loss(model: Lookalike, X: sp.csr_matrix) -> np.ndarray:
    """The part of each row (of known items) that the model's singular vectors leave over, in [0, 1]."""
    known = X[:, np.array(model.item_ids_.to_pylist(), np.int64)].tocsr()
    side = model.embedding_
    rows = known[:, side.columns]
    length = np.asarray(rows.multiply(rows).sum(axis=1)).ravel()
    image = np.asarray(rows @ side.right, np.float64)
    return np.asarray(1 - np.square(image).sum(axis=1) / np.maximum(length, 1e-12))


def training_user(X: sp.csr_matrix, seed: np.ndarray, users: Sequence[int]) -> list[Neighbours]:
    """What a seed looks like to a model trained without, and with, one user who is not in the seed."""
    everybody = np.arange(X.shape[0])
    whole = fitted(X, everybody)
    pairs = []
    for user in users:
        worlds = []
        for model in (fitted(X, np.delete(everybody, user)), whole):
            ids = pa.array([str(row) for row in seed], pa.large_string())
            worlds.append(left_out(model, model.match(ids)[0]))
        pairs.append(Neighbours(len(seed), "training user", *worlds))
    return pairs


# --- what the noise costs, and the report ----------------------------------------------------------------


def cost(
    model: Lookalike, truth: np.ndarray, size: int, epsilons: Sequence[float | None], rng: np.random.Generator
) -> dict[float | None, np.ndarray]:
    """What is told of random seeds of one audience, with each epsilon (None: without noise).

    Returns
    -------
    float64, 2 x outputs but the first: the mean, and the standard error over the seeds.
    """
    seeds = [left_out(model, np.sort(rng.choice(truth, size, replace=False))) for _ in range(12)]
    told = {e: np.concatenate([answers(one, e, 0, 8 if e else 1) for one in seeds])[:, 1:] for e in epsilons}
    return {epsilon: np.array([rows.mean(axis=0), rows.std(axis=0)]) for epsilon, rows in told.items()}


def generated(users: int = 3000, items: int = 400, tribes: int = 12, state: int = 0) -> laleval.Block:
    """A made-up block: a third of what a user does is within its tribe's items; the audiences are the tribes."""
    rng = np.random.default_rng(state)
    tribe = rng.integers(0, tribes, users)
    user = np.repeat(np.arange(users), 18)
    own = rng.integers(0, items // tribes, len(user)) * tribes + tribe[user]
    item = np.where(rng.random(len(user)) < 1 / 3, own, rng.integers(0, items, len(user)))
    X = sp.csr_matrix((np.ones(len(user), np.float32), (user, item)), shape=(users, items))
    X.data[:] = 1
    jobs = []
    for number in range(tribes):
        truth = np.flatnonzero(tribe == number)
        jobs += [laleval.Job(f"tribe {number}", np.sort(rng.choice(truth, s, replace=False)), truth) for s in (25, 100)]
    return laleval.Block("generated", X, tuple(jobs))


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer audiences, pairs and trials")
    arguments = parser.parse_args(argv)
    few = arguments.quick
    rng = np.random.default_rng(1)
    blocks = list(laleval.blocks("v2")) or [generated()]
    pairs: list[Neighbours] = []
    exports: dict[tuple[str, int], list[tuple[float, dict[str, float]]]] = {}
    costs: dict[int, list[dict[float | None, np.ndarray]]] = {}
    sides: dict[str, list[float]] = {}
    for block in blocks:
        print(f"{block.name}: {block.X.shape[0]:,} users", file=sys.stderr, flush=True)
        subject = Subject.of(block)
        for size in sorted({len(job.seed) for job in subject.jobs}):
            jobs = [job for job in subject.jobs if len(job.seed) == size]
            jobs = [jobs[k] for k in rng.choice(len(jobs), min(3 if few else 16, len(jobs)), replace=False)]
            pairs += neighbours(subject.model, jobs, rng, each=1 if few else 3)
            found = [(share, exported_membership(subject.model, job, share)) for job in jobs for share in (0.05, 0.2)]
            exports[block.name, size] = found
            costs.setdefault(size, []).extend(
                cost(subject.model, job.truth, size, (None, *EPSILONS), rng) for job in jobs[:6]
            )
        sides[block.name] = [model_membership(block.X, rng) for _ in range(1 if few else 3)]
    _report_calibration(pairs)
    _report_provider(pairs, 40 if few else 120, rng)
    _report_cost(costs)
    _report_owner(exports)
    _report_model(sides, blocks[-1], few, rng)
    return 0


def _report_calibration(pairs: Sequence[Neighbours]) -> None:
    print(
        "\nWhat one user more or less changes in the counts of the ranking's parts, in users. 'scale' is what the noise"
    )
    print("takes for a loss of 1: 99 % must be below it.\n")
    print(
        f"{'seed':>6}{'pairs':>7}{'parts':>7}{'scale':>7}"
        + "".join(f"{name:>8}" for name in ("50 %", "90 %", "99 %", "most"))
    )
    for size in sorted({pair.size for pair in pairs}):
        for cells in (COARSE, FINE):
            changes = [change(pair, cells) for pair in pairs if pair.size == size]
            if cells is COARSE or size >= FINE_FROM[0]:
                quantiles = np.quantile(changes, [0.5, 0.9, 0.99, 1])
                shown = "".join(f"{q:>8.2f}" for q in quantiles)
                print(f"{size:>6}{len(changes):>7}{1 + len(cells.within):>7}{float(cells.calibrated):>7}{shown}")


def _report_provider(pairs: Sequence[Neighbours], trials: int, rng: np.random.Generator) -> None:
    print(
        "\n(A) Is one id a user of the model? Advantage [95 %] and AUC from one answer; the attacker knows the pair.\n"
    )
    chosen = [pairs[k] for k in rng.choice(len(pairs), min(90, len(pairs)), replace=False)]
    tables = {epsilon: distinguish(chosen, epsilon, trials) for epsilon in (None, *EPSILONS)}
    print(f"{'':18}" + "".join(f"{_named(epsilon):>30}" for epsilon in tables))
    for attacker in (*OUTPUTS, "all outputs", "likelihood"):
        cells = [f"{table[attacker].advantage}  {table[attacker].auc.value:.3f}" for table in tables.values()]
        print(f"{attacker:18}" + "".join(f"{cell:>30}" for cell in cells))
    bounds = ["1", *(f"{np.tanh(epsilon / 2):.3f}" for epsilon in EPSILONS)]
    print(f"{'stated bound':18}" + "".join(f"{bound:>30}" for bound in bounds))
    print("\nThe practical attack, which knows neither pair nor model: the difference of two answers\n")
    for epsilon in (None, *EPSILONS):
        found = junk(chosen, epsilon, trials // 4)
        print(f"{_named(epsilon):18}advantage {found.advantage}, AUC {found.auc}")
    print(
        "\nThe likelihood's advantage from 1, 4, 16 and 64 different seeds: on average, and for the worst pair of all\n"
    )
    worst = max(pairs, key=lambda pair: loss(pair.without, pair.including, 1.0))
    for epsilon in EPSILONS:
        mean, most = (
            [np.mean([likelihood(pair, epsilon, 4000, n)[0] for pair in some]) for n in (1, 4, 16, 64)]
            for some in (chosen[:20], [worst])
        )
        print(f"{_named(epsilon):18}" + "   ".join(" ".join(f"{a:.2f}" for a in line) for line in (mean, most)))


def change(pair: Neighbours, cells: Cells) -> float:
    """What the one user changes in the counts of the ranking's parts, in users (the matched count changes by one)."""
    return (loss(pair.without, pair.including, 3.0, cells) - 1) / 2 * float(cells.calibrated)


def _named(epsilon: float | None) -> str:
    return "noise off" if epsilon is None else f"epsilon {epsilon:g}"


def _report_cost(costs: dict[int, list[dict[float | None, np.ndarray]]]) -> None:
    print("\nMean and standard error over seeds of one audience, without and with noise\n")
    names = ("recall", *(f"relevance {share:.0%}" for share in TOLD_AT))
    print(f"{'seed':>6}  {'':12}" + "".join(f"{name:>17}" for name in names))
    for size, found in costs.items():
        for epsilon in (None, *EPSILONS[::-1]):
            mean = np.mean([one[epsilon][0] for one in found], axis=0)
            error = np.sqrt(np.mean([np.square(one[epsilon][1]) for one in found], axis=0))
            cells = (f"{m:.3f} +-{e:.3f}" for m, e in zip(mean, error, strict=True))
            print(f"{size:>6}  {_named(epsilon):12}" + "".join(f"{cell:>17}" for cell in cells))


def _report_owner(exports: dict[tuple[str, int], list[tuple[float, dict[str, float]]]]) -> None:
    print(
        "\n(B) Who is in the seed, from an exported audience without it: AUC [95 %], and the share of the seed among as"
    )
    print("many suspects. (With the seed included it comes first: AUC 1.)\n")
    for (name, size), found in exports.items():
        cells = []
        for share in (0.05, 0.2):
            auc, caught = (Estimate.of([one[k] for s, one in found if s == share]) for k in ("AUC", "found"))
            cells.append(f"{share:>4.0%}: {auc} {caught.value:.3f}")
        print(f"{name:24}{size:>5}   " + "   ".join(cells))


def _report_model(sides: dict[str, list[float]], block: laleval.Block, few: bool, rng: np.random.Generator) -> None:
    print("\n(C) Was a user in the training data? AUC of the reconstruction by the item side; half trained.\n")
    for name, aucs in sides.items():
        print(f"{name:24}{np.mean(aucs):.3f}")
    seed = block.jobs[0].seed
    outside = np.setdiff1d(np.arange(block.X.shape[0]), seed)
    pairs = training_user(block.X, seed, rng.choice(outside, 3 if few else 12, replace=False))
    print(f"\nThe same from the figures of a seed of {len(seed)} ({block.name}): trained with and without one user\n")
    differ = [not np.array_equal(pair.without.position, pair.including.position) for pair in pairs]
    print(f"noise off         positions differ in {np.mean(differ):.0%} of the pairs")
    for epsilon in EPSILONS:
        found = Estimate.of([likelihood(pair, epsilon, LIKELIHOOD_TRIALS)[0] for pair in pairs])
        print(f"{_named(epsilon):18}the likelihood's advantage {found}")


if __name__ == "__main__":
    sys.exit(main())
