"""Adaptive work replayed on cached scores: what exits and depths save, and what they lose.

Half of the queries calibrate, the rest is measured; labels are read for measuring alone.
"""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import cuts
import numpy as np
from judged import CALIBRATION, Asked, ndcg

from rerank_plugins.adaptive.exits.calibrate import (
    Calibrated,
    CalibrationOptions,
    Case,
    case_of,
    certify,
    choose_scale,
    halves,
    loss_of,
    replay,
    work,
)
from rerank_plugins.adaptive.exits.collect import Observed
from rerank_plugins.adaptive.exits.simulate import SimulatedOrder, simulate
from rerank_plugins.rules import risk_control
from rerank_plugins.scoring.exits.calibration_file import Exits, Limits
from rerank_plugins.scoring.exits.segmented_model import SegmentedModel

DEPTHS = (20, 30, 50, 75)
ALPHAS = (0.01, 0.02, 0.03, 0.05)
SPLITS = 100


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
    """The calibration and the measured queries.

    `shaped` has exits for each loss, as a user makes them; those of `done` are for the plan's.
    `nulls` are scores of random query-passage pairs, ascending.
    """

    done: Calibrated
    shaped: Mapping[float, Exits]
    how: CalibrationOptions
    costs: tuple[float, ...]
    cases: tuple[Case, ...]
    asked: tuple[Asked, ...]
    whole: float
    first_stage: float
    sets: Mapping[str, Mapping[str, float]]
    nulls: tuple[float, ...]


def run(
    model: SegmentedModel,
    queries: Sequence[Asked],
    seen: Sequence[Observed],
    how: CalibrationOptions,
    costs: Sequence[float],
) -> Replay:
    """Calibrate on one half of the observed queries, keep the other half to measure on."""
    ranks: dict[str, int] = {}
    calibrating: list[int] = []
    for place, one in enumerate(queries):
        ranks[one.collection] = ranks.get(one.collection, 0) + 1
        if one.collection == CALIBRATION or ranks[one.collection] % 2:
            calibrating.append(place)
    rest = [place for place in range(len(queries)) if place not in set(calibrating)]
    questions = [queries[i].question for i in calibrating]
    done = certify(model, questions, [seen[i] for i in calibrating], how, costs=costs)
    heads = [one.head for one in done.fitted]
    cases = [case_of(one, heads, model, how, done.probability) for one in seen]
    shaping = [cases[calibrating[i]] for i in halves(len(calibrating), how.seed)[0]]
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
        {alpha: _reshaped(done, shaping, replace(how, alpha=alpha), costs) for alpha in ALPHAS},
        how,
        tuple(costs),
        tuple(cases[i] for i in rest),
        tuple(queries[i] for i in rest),
        float(np.nanmean(whole[rest])),
        float(np.nanmean(before[rest])),
        sets,
        cuts.null_scores(model, questions, how.seed),
    )


def table(one: Replay, first: Replay) -> list[Measured]:
    """Measure every way of doing less; `first` is the same of the first exit alone."""
    rows = [measured(one, "whole model", "", [replay(c, None, one.how) for c in one.cases], 1.0)]
    for exits, name in ((one, "exits"), (first, "first exit > whole")):
        rows += [row for method in ("crc", "ucb") for row in _certified(exits, name, method)]
    for count in DEPTHS:
        outcomes = [counted(one, c, [count], 0) for c in one.cases]
        spent = float(np.mean([outcome.shares[0] for outcome in outcomes]))
        rows.append(measured(one, "fixed depth", str(count), outcomes, spent))
    for place, fitted in enumerate(one.done.fitted):
        outcomes = [_at_layer(one, c, place) for c in one.cases]
        spent = sum(one.costs[: place + 1]) / sum(one.costs)
        rows.append(measured(one, "fixed layer", str(fitted.head.layer), outcomes, spent))
    return rows


def curve(one: Replay) -> list[Measured]:
    """Measure the exits at every margin."""
    return [_exits(one, "exits", limits(one, level)) for level in one.done.exits.levels[::2]]


def certified(one: Replay, method: str, alpha: float) -> Limits | None:
    """Return the boldest limits that are certified for `alpha`; None where nothing is."""
    exits = one.shaped[alpha]
    choice = risk_control.choose(exits.losses, alpha, method=method)  # type: ignore[arg-type]
    if choice.place is None:
        return None
    return exits.scale.at(float(exits.levels[choice.place]), one.how.top_k)


def limits(one: Replay, level: float) -> Limits:
    """Return the limits of a level."""
    return one.done.exits.scale.at(level, one.how.top_k)


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
            place = risk_control.choose(pool[order[:half]], alpha, method=method).place  # type: ignore[arg-type]
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


def _reshaped(
    done: Calibrated, shaping: Sequence[Case], how: CalibrationOptions, costs: Sequence[float]
) -> Exits:
    """Return the exits as they are made for another loss."""
    deviations = [one.deviation for one in done.fitted]
    shape, losses = choose_scale(shaping, done.cases, deviations, costs, how)
    return replace(done.exits, scale=shape, losses=losses)


def _certified(one: Replay, name: str, method: str) -> list[Measured]:
    found = {alpha: certified(one, method, alpha) for alpha in ALPHAS}
    return [
        _exits(one, f"{name}, {method} {alpha:g}", within)
        for alpha, within in found.items()
        if within is not None
    ]


def _exits(one: Replay, way: str, within: Limits) -> Measured:
    outcomes = [replay(c, within, one.how) for c in one.cases]
    setting = f"{within.margins[0]:.2f}"
    if within.depth is not None:
        setting += f", first {within.depth}"
    return measured(one, way, setting, outcomes, spent_on(outcomes, one.costs))


def counted(one: Replay, c: Case, counts: Sequence[int], exits: int) -> SimulatedOrder:
    """Replay a case with `exits` exits, so many candidates at each stage."""
    return simulate(
        c.levels[:exits],
        c.final,
        counts=counts,
        top_k=one.how.top_k,
        priors=c.priors,
        prior_weight=one.how.prior_weight,
    )


def _at_layer(one: Replay, c: Case, place: int) -> SimulatedOrder:
    return simulate(
        [],
        c.levels[place],
        top_k=one.how.top_k,
        priors=c.priors,
        prior_weight=one.how.prior_weight,
    )


def spent_on(outcomes: Sequence[SimulatedOrder], costs: Sequence[float]) -> float:
    """Return the mean work of outcomes, as a share of the whole model's on all candidates."""
    return float(np.mean([work(outcome, costs) for outcome in outcomes]))


def measured(
    one: Replay, way: str, setting: str, outcomes: Sequence[SimulatedOrder], spent: float
) -> Measured:
    """Measure what outcomes give, `spent` being their share of the whole model's work."""
    pairs = list(zip(one.cases, outcomes, one.asked, strict=True))
    mean = float(np.nanmean([ndcg(outcome.order, query) for _, outcome, query in pairs]))
    regret = float(np.mean([loss_of(c, outcome.order, one.how) for c, outcome, _ in pairs]))
    lost = 100.0 * (1.0 - mean / one.whole)
    return Measured(way, setting, 1.0 / spent, mean, lost, regret)
