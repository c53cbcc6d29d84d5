"""Adaptive work replayed on cached scores: what exits, cascades and depths save, and lose.

Half of the queries calibrate, the rest is measured; labels are read for measuring alone.
"""

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rerank_plugins import risk
from rerank_plugins.evaluation import datasets, sources
from rerank_plugins.evaluation.datasets import Dataset, Topic
from rerank_plugins.exits import Calibrated, Outcome, Plan, Question, certify, observe, simulate
from rerank_plugins.exits.calibrate import Case, case_of, loss_of, replay, work
from rerank_plugins.scorers.artefact import Limits
from rerank_plugins.scorers.trunk import Trunk
from rerank_plugins.selection import MassDepth, depth

CALIBRATION = "trec-dl22"
DEPTHS = (20, 30, 50, 75)
MASSES = (0.8, 0.85, 0.9, 0.95, 0.98, 1.0)
KEEPS = (10, 12, 15, 20, 30, 40)
ALPHAS = (0.01, 0.02, 0.03, 0.05)
SPLITS = 100


@dataclass(frozen=True, slots=True)
class Asked:
    """A query of a set, its distinct candidates, and what was judged of them."""

    collection: str
    question: Question
    docids: tuple[str, ...]
    relevances: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Measured:
    """What a way of doing less gave on the measured queries."""

    way: str
    setting: str
    speedup: float
    ndcg: float
    loss_percent: float
    regret: float


@dataclass(frozen=True, slots=True)
class Replay:
    """The calibration, the judged queries it saw (`known`), and the measured ones.

    `shaped` has a calibration for each loss, as a user makes one; `done` is that for the plan's.
    """

    done: Calibrated
    shaped: Mapping[float, Calibrated]
    how: Plan
    costs: tuple[float, ...]
    known: tuple[tuple[Case, Asked], ...]
    cases: tuple[Case, ...]
    asked: tuple[Asked, ...]
    whole: float
    first_stage: float
    sets: Mapping[str, Mapping[str, float]]


def collections(folder: Path) -> list[str]:
    """List the sets that are there, the calibration set first."""
    names = sorted(one.name for one in folder.iterdir() if one.is_dir())
    return sorted(names, key=lambda name: name != CALIBRATION)


def read(folder: Path, name: str, *, run: str = "BM25") -> Dataset:
    """Read a set with one retriever's candidates."""
    runs = [folder / name / "rerank" / f"{run}.jsonl", *(folder / name).glob("candidates/*.trec")]
    return sources.read(folder / name, run=next(one for one in runs if one.is_file()))


def asked(folder: Path, name: str, trunk: Trunk, *, sample: int, seed: int = 0) -> list[Asked]:
    """Draw queries of a set, with their first 100 candidates; none that takes half of a pair."""
    found = read(folder, name)
    most = trunk.max_tokens // 2
    short = tuple(one for one in found.topics if len(trunk.tokenizer.query(one.query)) <= most)
    found = replace(found, topics=short)
    chosen = datasets.shorten(datasets.sample(found, sample, seed=seed), 100)
    return [_asked(name, topic, found.qrels.get(topic.qid, {})) for topic in chosen.topics]


def _asked(name: str, topic: Topic, relevances: Mapping[str, int]) -> Asked:
    seen: dict[str, int] = {}
    for place, one in enumerate(topic.candidates):
        if one.text and one.text.strip():
            seen.setdefault(one.text, place)
    places = list(seen.values())
    priors = tuple(topic.candidates[i].prior or 0.0 for i in places)
    docids = tuple(topic.docids[i] for i in places)
    return Asked(name, Question(topic.query, tuple(seen), priors), docids, relevances)


def run(
    trunk: Trunk,
    queries: Sequence[Asked],
    how: Plan,
    costs: Sequence[float],
    progress: Callable[[], None],
) -> Replay:
    """Calibrate on one half of the queries, keep the other half to measure on."""
    seen = observe(trunk, [one.question for one in queries], progress=progress)
    ranks: dict[str, int] = {}
    calibrating: list[int] = []
    for place, one in enumerate(queries):
        ranks[one.collection] = ranks.get(one.collection, 0) + 1
        if one.collection == CALIBRATION or ranks[one.collection] % 2:
            calibrating.append(place)
    rest = [place for place in range(len(queries)) if place not in set(calibrating)]
    shaped = {
        alpha: certify(
            trunk,
            [queries[i].question for i in calibrating],
            [seen[i] for i in calibrating],
            replace(how, alpha=alpha),
            costs=costs,
        )
        for alpha in dict.fromkeys((how.alpha, *ALPHAS))
    }
    done = shaped[how.alpha]
    heads = [one.head for one in done.fitted]
    cases = [case_of(one, heads, trunk, how, done.probability) for one in seen]
    whole = np.array([ndcg(one.full, q) for one, q in zip(cases, queries, strict=True)])
    before = np.array([ndcg(range(len(q.docids)), q) for q in queries])
    sets: dict[str, Mapping[str, float]] = {}
    for name in dict.fromkeys(one.collection for one in queries if one.relevances):
        inside = [place for place, one in enumerate(queries) if one.collection == name]
        sets[name] = {
            "queries": len(inside),
            "first stage": float(np.nanmean(before[inside])),
            "whole model": float(np.nanmean(whole[inside])),
        }
    return Replay(
        done,
        shaped,
        how,
        tuple(costs),
        tuple((cases[i], queries[i]) for i in calibrating if np.isfinite(whole[i])),
        tuple(cases[i] for i in rest),
        tuple(queries[i] for i in rest),
        float(np.nanmean(whole[rest])),
        float(np.nanmean(before[rest])),
        sets,
    )


def ndcg(order: Sequence[int] | NDArray[np.intp], query: Asked, k: int = 10) -> float:
    """Measure nDCG@10 with linear gains; not a number where nothing relevant is judged."""
    ideal = np.array(sorted(query.relevances.values(), reverse=True)[:k], dtype=np.float64)
    gains = np.array([query.relevances.get(query.docids[i], 0) for i in order[:k]])
    discounts = 1.0 / np.log2(np.arange(2, k + 2))
    best = float((ideal * discounts[: len(ideal)]).sum())
    return float((gains * discounts[: len(gains)]).sum()) / best if best > 0.0 else float("nan")


def table(one: Replay) -> list[Measured]:
    """Measure every way of doing less."""
    rows = [_measured(one, "whole model", "", [replay(c, None, one.how) for c in one.cases])]
    rows += [row for method in ("crc", "ucb") for row in _certified(one, method)]
    rows.append(
        _exits(one, "exits, mean regret 0.01 when calibrated", limits_at(one, one.how.alpha))
    )
    for chosen_by, choose in CHOICES.items():
        row = cascade(one, *choose(one))
        rows.append(replace(row, way=f"{row.way}, chosen by {chosen_by}"))
    for count in DEPTHS:
        outcomes = [_shallow(one, c, [count], 0) for c in one.cases]
        rows.append(_measured(one, "fixed depth", str(count), outcomes, whole_pairs=True))
    for place, fitted in enumerate(one.done.fitted):
        outcomes = [_at_layer(one, c, place) for c in one.cases]
        share = sum(one.costs[: place + 1]) / sum(one.costs)
        row = _measured(one, "fixed layer", str(fitted.head.layer), outcomes, whole_pairs=True)
        rows.append(_with_speedup(row, 1.0 / share))
    return rows


def curve(one: Replay) -> list[Measured]:
    """Measure the exits at every margin."""
    return [_exits(one, "exits", limits(one, level)) for level in one.done.exits.levels[::2]]


def cascades(one: Replay) -> list[Measured]:
    """Measure the first exit, then the whole model, at every setting."""
    return [cascade(one, mass, keep) for mass, keep in itertools.product(MASSES, KEEPS)]


def cascade(one: Replay, mass: float, keep: int) -> Measured:
    """Measure the first exit over an adaptive depth, then the whole model over `keep`."""
    outcomes = [_cascaded(one, c, mass, keep) for c in one.cases]
    row = _measured(one, "first exit > whole", f"mass {mass:g}, keep {keep}", outcomes)
    return _with_speedup(row, 1.0 / _cascade_work(one, outcomes))


def by_regret(one: Replay) -> tuple[float, int]:
    """Choose the cheapest cascade whose mean regret on the calibration queries is alpha at most."""

    def loses(mass: float, keep: int) -> float:
        cases = one.done.cases
        return float(
            np.mean([loss_of(c, _cascaded(one, c, mass, keep).order, one.how) for c in cases])
        )

    return _cheapest(one, loses)


def by_labels(one: Replay) -> tuple[float, int]:
    """Choose the cheapest cascade whose judged nDCG@10 falls by alpha at most when calibrated."""
    whole = np.mean([ndcg(case.full, query) for case, query in one.known])

    def loses(mass: float, keep: int) -> float:
        orders = [(_cascaded(one, case, mass, keep).order, query) for case, query in one.known]
        return float(1.0 - np.mean([ndcg(*pair) for pair in orders]) / whole)

    return _cheapest(one, loses)


CHOICES = {"regret": by_regret, "labels": by_labels}


def _cheapest(one: Replay, loses: Callable[[float, int], float]) -> tuple[float, int]:
    found: list[tuple[float, float, int]] = []
    for mass, keep in itertools.product(MASSES, KEEPS):
        if loses(mass, keep) <= one.how.alpha:
            outcomes = [_cascaded(one, case, mass, keep) for case, _ in one.known]
            found.append((_cascade_work(one, outcomes), mass, keep))
    return min(found)[1:] if found else (MASSES[-1], KEEPS[-1])


def certified(one: Replay, method: str, alpha: float) -> Limits | None:
    """Give the boldest limits that are certified for `alpha`; None where nothing is."""
    exits = one.shaped[alpha].exits
    choice = risk.choose(exits.losses, alpha, method=method)  # type: ignore[arg-type]
    if choice.place is None:
        return None
    return exits.shape.at(float(exits.levels[choice.place]), one.how.top_k)


def limits_at(one: Replay, alpha: float) -> Limits:
    """Give the boldest limits whose mean regret on the calibration queries is `alpha` at most."""
    means = one.done.exits.losses.mean(axis=0)
    boldest = max(0, int((means <= alpha).cumprod().sum()) - 1)
    return limits(one, float(one.done.exits.levels[boldest]))


def limits(one: Replay, level: float) -> Limits:
    """Give the limits of a level."""
    return one.done.exits.shape.at(level, one.how.top_k)


def splits(one: Replay, seed: int = 0) -> list[dict[str, object]]:
    """Certify on random halves of the queries that shaped nothing, and measure on the others."""
    levels = one.done.exits.levels
    losses = [
        [loss_of(c, replay(c, limits(one, level), one.how).order, one.how) for level in levels]
        for c in one.cases
    ]
    pool = np.concatenate([one.done.exits.losses, np.array(losses)])
    random = np.random.default_rng(seed)
    rows: list[dict[str, object]] = []
    for method, alpha in itertools.product(("crc", "ucb"), (*ALPHAS, 0.1)):
        realised: list[float] = []
        for _ in range(SPLITS):
            order = random.permutation(len(pool))
            half = len(pool) // 2
            place = risk.choose(pool[order[:half]], alpha, method=method).place  # type: ignore[arg-type]
            # Where nothing can be certified everything runs in full, which loses nothing.
            realised.append(0.0 if place is None else float(pool[order[half:], place].mean()))
        rows.append(
            {
                "method": method,
                "alpha": alpha,
                "certified": sum(value > 0.0 for value in realised),
                "within": sum(value <= alpha for value in realised),
                "mean": float(np.mean(realised)),
                "queries": len(pool) // 2,
            }
        )
    return rows


def _certified(one: Replay, method: str) -> list[Measured]:
    found = {alpha: certified(one, method, alpha) for alpha in ALPHAS}
    return [
        _exits(one, f"exits, {method} {alpha:g}", within)
        for alpha, within in found.items()
        if within is not None
    ]


def _exits(one: Replay, way: str, within: Limits) -> Measured:
    outcomes = [replay(c, within, one.how) for c in one.cases]
    setting = f"{within.margins[0]:.2f}"
    if within.depth is not None:
        setting += f", first {within.depth}"
    return _measured(one, way, setting, outcomes)


def _cascaded(one: Replay, c: Case, mass: float, keep: int) -> Outcome:
    count = depth(MassDepth(mass, min=one.how.top_k), c.first_stage or (None,) * len(c.final))
    return _shallow(one, c, [count, keep], 1)


def _shallow(one: Replay, c: Case, counts: Sequence[int], exits: int) -> Outcome:
    return simulate(
        c.levels[:exits],
        c.final,
        counts=counts,
        top_k=one.how.top_k,
        priors=c.priors,
        prior_weight=one.how.prior_weight,
    )


def _at_layer(one: Replay, c: Case, place: int) -> Outcome:
    return simulate(
        [],
        c.levels[place],
        top_k=one.how.top_k,
        priors=c.priors,
        prior_weight=one.how.prior_weight,
    )


def _cascade_work(one: Replay, outcomes: Sequence[Outcome]) -> float:
    merged = (one.costs[0], sum(one.costs[1:]))
    return float(np.mean([work(outcome, merged) for outcome in outcomes]))


def _measured(
    one: Replay,
    way: str,
    setting: str,
    outcomes: Sequence[Outcome],
    *,
    whole_pairs: bool = False,
) -> Measured:
    pairs = list(zip(one.cases, outcomes, one.asked, strict=True))
    values = [ndcg(outcome.order, query) for _, outcome, query in pairs]
    losses = [loss_of(c, outcome.order, one.how) for c, outcome, _ in pairs]
    if whole_pairs:
        spent = float(np.mean([outcome.shares[0] for outcome in outcomes]))
    elif len(outcomes[0].shares) == len(one.costs):
        spent = float(np.mean([work(outcome, one.costs) for outcome in outcomes]))
    else:
        spent = 1.0
    mean = float(np.nanmean(values))
    lost = 100.0 * (1.0 - mean / one.whole)
    return Measured(way, setting, 1.0 / spent, mean, lost, float(np.mean(losses)))


def _with_speedup(row: Measured, speedup: float) -> Measured:
    return Measured(row.way, row.setting, speedup, row.ndcg, row.loss_percent, row.regret)
