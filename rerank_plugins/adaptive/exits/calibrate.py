"""Calibration of exits on unlabelled queries: half of them fit the exits, half certify them."""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from ...errors import InvalidRequest
from ...rules import calibration, risk_control, selection
from ...rules.calibration import Calibration
from ...scoring.exits.calibration_file import Exits, Limits, LimitScale, subject
from ...scoring.exits.heads import Head
from ...scoring.exits.segmented_model import SegmentedModel
from ..exit_audit import ExitLoss
from .collect import Observed, Question, observe
from .fit import Fitted, fit, levels
from .simulate import SimulatedOrder, simulate

Floats: TypeAlias = NDArray[np.float64]
# Margins in deviations of the residuals, from wide to narrow.
_LEVELS = np.concatenate([np.linspace(6.0, 3.0, 7), np.linspace(2.9, 0.0, 30)])
_RATIOS = (0.25, 0.5, 1.0, 2.0)
# Shares of the candidates that enter per level; None: all. At the widest level all enter anyway.
_DEPTH_SHARES = (None, 0.2, 0.3, 0.4, 0.6)
# Shares of the first stage's softmax that a depth holds, from deep to shallow.
_MASSES = (1.0, 0.999, 0.998, 0.995, 0.99, 0.98, 0.97, 0.96, 0.95, 0.93, 0.9, 0.85, 0.8, 0.7, 0.6)
_COUNTS = (0, 4, 8, 12, 16, 24, 32, 48, 64, 100)
_MIN_QUERIES = 40


@dataclass(frozen=True, slots=True)
class CalibrationOptions:
    """What is certified: the mean `loss` of the best `top_k`, with the prior fused in.

    probability: turns scores into the gains of regret; None: a typical one is fitted
    """

    top_k: int = 10
    loss: ExitLoss = "regret"
    alpha: float = 0.01
    prior_weight: float = 0.0
    probability: Calibration | None = None
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Case:
    """A query as it is replayed; all but `full` are per candidate.

    levels: scores at each exit
    final: the whole model's scores
    gains: what each candidate is worth in regret
    full: the whole model's order
    priors: None also where the prior is not fused in
    first_stage: the priors, where there are any
    """

    levels: list[Floats]
    final: Floats
    gains: Floats
    full: NDArray[np.intp]
    priors: Floats | None
    first_stage: tuple[float, ...] | None = None


@dataclass(frozen=True, slots=True)
class Calibrated:
    """The calibrated exits, how good each head is, and the held-out cases that certified them.

    `probability` turned scores into the gains of regret.
    """

    exits: Exits
    fitted: tuple[Fitted, ...]
    cases: tuple[Case, ...]
    probability: Calibration


def calibrate(
    model: SegmentedModel,
    questions: Sequence[Question],
    how: CalibrationOptions | None = None,
    *,
    costs: Sequence[float],
    progress: Callable[[], None] = lambda: None,
) -> Calibrated:
    """Return fitted and certified exits; `costs` are each segment's per pair, in any unit.

    Raises `InvalidRequest` for too few queries.
    """
    how = how or CalibrationOptions()
    if len(questions) < _MIN_QUERIES:
        message = (
            f"{len(questions)} queries; expected at least {_MIN_QUERIES}, better 300: half of them "
            "fit the heads, the other half certifies the loss"
        )
        raise InvalidRequest(message)
    return certify(model, questions, observe(model, questions, progress=progress), how, costs=costs)


def certify(
    model: SegmentedModel,
    questions: Sequence[Question],
    observed: Sequence[Observed],
    how: CalibrationOptions,
    *,
    costs: Sequence[float],
) -> Calibrated:
    """Return what `calibrate` does, for queries that were observed already."""
    first, second = halves(len(questions), how.seed)
    fitted = fit([observed[i] for i in first], model.heads)
    heads = [each.head for each in fitted]
    deviations = [each.deviation for each in fitted]
    probability = how.probability or _typical([observed[i] for i in first], how.top_k)
    cases = [case_of(seen, heads, model, how, probability) for seen in observed]
    held = [cases[i] for i in second]
    scale, losses = choose_scale([cases[i] for i in first], held, deviations, costs, how)
    exits = Exits(
        subject(model.files, model.max_tokens, how.prior_weight),
        tuple(heads),
        scale,
        _LEVELS,
        losses,
        how.top_k,
        how.loss,
        plans=plan_qualities(held, len(heads) + 1, how),
        masses=np.array(_MASSES),
        mass_losses=_mass_losses(held, how),
        probability=probability,
        facts=_facts(model, questions, fitted, how),
    )
    return Calibrated(exits, tuple(fitted), tuple(held), probability)


def choose_scale(
    cases: Sequence[Case],
    held: Sequence[Case],
    deviations: Sequence[float],
    costs: Sequence[float],
    how: CalibrationOptions,
) -> tuple[LimitScale, Floats]:
    """Return the limit scale that `cases` choose, and its losses [held, levels] on those `held`.

    `deviations` are those of the heads' residuals.
    """
    scale = _cheapest_scale(cases, deviations, costs, how)
    limits = [scale.at(level, how.top_k) for level in _LEVELS]
    return scale, np.array([[replayed_loss(case, at, how) for at in limits] for case in held])


def halves(count: int, seed: int) -> tuple[list[int], list[int]]:
    """Return random halves of the queries' positions: to fit exits, and to certify them."""
    order = np.random.default_rng(seed).permutation(count).tolist()
    return order[: count // 2], order[count // 2 :]


def replay(
    case: Case,
    limits: Limits | None,
    how: CalibrationOptions,
    *,
    counts: Sequence[int] | None = None,
) -> SimulatedOrder:
    """Return a case's order within limits (None: everything runs), `counts` bounding each stage."""
    return simulate(
        case.levels,
        case.final,
        margins=None if limits is None else limits.margins,
        counts=counts,
        depth=None if limits is None else limits.depth,
        top_k=how.top_k,
        priors=case.priors,
        prior_weight=how.prior_weight,
    )


def loss_of(case: Case, order: Sequence[int] | NDArray[np.intp], how: CalibrationOptions) -> float:
    """Return what an order loses compared with the whole model's."""
    if how.loss == "regret":
        return risk_control.regret(list(order), case.gains, how.top_k)
    return risk_control.top_k_miss(list(order), case.full.tolist(), how.top_k)


def replayed_loss(
    case: Case, limits: Limits | None, how: CalibrationOptions, counts: Sequence[int] | None = None
) -> float:
    """Return what a case loses within limits, or with `counts`."""
    return loss_of(case, replay(case, limits, how, counts=counts).order, how)


def work(outcome: SimulatedOrder, costs: Sequence[float]) -> float:
    """Return the work done, as a share of the whole model's on all candidates."""
    return sum(s * c for s, c in zip(outcome.shares, costs, strict=True)) / sum(costs)


def plan_qualities(
    cases: Sequence[Case], stages: int, how: CalibrationOptions
) -> dict[tuple[int, ...], float]:
    """Return 1 - mean loss of plans, which are the most candidates of each stage."""
    longest = max(len(case.final) for case in cases)
    counts = [count for count in _COUNTS if count <= longest]
    found: dict[tuple[int, ...], float] = {}
    for rising in itertools.combinations_with_replacement(counts, stages):
        plan = rising[::-1]
        if plan[0] == 0 or (stages > 2 and plan[1] and plan[1] < plan[0] // 16):  # noqa: PLR2004
            continue
        losses = [replayed_loss(case, None, how, plan) for case in cases[:100]]
        found[plan] = 1.0 - float(np.mean(losses))
    return found


def case_of(
    seen: Observed,
    heads: Sequence[Head],
    model: SegmentedModel,
    how: CalibrationOptions,
    probability: Calibration,
) -> Case:
    """Return a case to replay from what was observed of a query."""
    scores, final = levels(seen, heads, model.options.fold)
    priors = seen.priors if how.prior_weight else None
    whole = simulate(scores, final, top_k=how.top_k, priors=priors, prior_weight=how.prior_weight)
    values = final
    if priors is not None:
        # Gains follow the order that is returned, which the prior takes part in.
        values = np.sort(final)[::-1][np.argsort(whole.order)]
    gains = calibration.apply(probability, values.astype(np.float32))
    given = None if seen.priors is None else tuple(seen.priors.tolist())
    return Case(scores, final, gains, whole.order, priors, given)


def _mass_losses(cases: Sequence[Case], how: CalibrationOptions) -> Floats:
    """Return the losses [cases, masses] of scoring in full only the head with each mass of priors.

    Empty where a case has no priors.
    """
    if any(case.first_stage is None for case in cases):
        return np.zeros((0, 0))
    losses = np.zeros((len(cases), len(_MASSES)))
    for row, case in zip(losses, cases, strict=True):
        for column, mass in enumerate(_MASSES):
            rule = selection.MassDepth(mass, min=how.top_k)
            count = selection.depth(rule, case.first_stage or ())
            row[column] = replayed_loss(replace(case, levels=[]), None, how, [count])
    return losses


def _cheapest_scale(
    cases: Sequence[Case],
    deviations: Sequence[float],
    costs: Sequence[float],
    how: CalibrationOptions,
) -> LimitScale:
    """Return the ratios of the margins and the depth that cost least at a mean loss of alpha."""
    longest = max(len(case.final) for case in cases)
    best: tuple[float, LimitScale] | None = None
    inner = itertools.product(_RATIOS, repeat=len(deviations) - 1)
    for share, ratios in itertools.product(_DEPTH_SHARES, inner):
        scales = tuple(d * r for d, r in zip(deviations, (1.0, *ratios), strict=True))
        scale = LimitScale(scales, None if share is None else share * longest)
        low, high = 0.0, float(_LEVELS[0])
        for _ in range(7):
            middle = (low + high) / 2.0
            limits = scale.at(middle, how.top_k)
            mean = float(np.mean([replayed_loss(case, limits, how) for case in cases]))
            low, high = (middle, high) if mean > how.alpha else (low, middle)
        limits = scale.at(high, how.top_k)
        spent = float(np.mean([work(replay(case, limits, how), costs) for case in cases]))
        if best is None or spent < best[0]:
            best = spent, scale
    return best[1] if best is not None else LimitScale(tuple(deviations))


def _typical(observed: Sequence[Observed], top_k: int) -> Calibration:
    """Return a logistic around the typical k-th best score, for a model without calibration."""
    final = [seen.final for seen in observed]
    spread = float(np.mean([scores.std() for scores in final])) or 1.0
    bar = float(np.mean([np.sort(scores)[-min(top_k, len(scores))] for scores in final]))
    return Calibration(2.0 / spread, -2.0 * bar / spread)


def _facts(
    model: SegmentedModel,
    questions: Sequence[Question],
    fitted: Sequence[Fitted],
    how: CalibrationOptions,
) -> dict[str, object]:
    sizes = [len(question.passages) for question in questions]
    return {
        "model": model.files.name,
        "quantisation": model.files.card.get("quantisation"),
        "queries": len(questions),
        "candidates": [min(sizes), max(sizes)],
        "shaped_for_alpha": how.alpha,
        "heads": [
            {"layer": each.head.layer, "deviation": each.deviation, "spearman": each.correlation}
            for each in fitted
        ],
    }
