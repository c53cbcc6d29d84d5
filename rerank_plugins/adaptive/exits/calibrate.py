"""From unlabelled queries to certified exits: one half shapes them, the other certifies them."""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ...errors import InvalidRequest
from ...rules import calibration, risk_control, selection
from ...rules.calibration import Calibration
from ...scoring.exits.calibration_file import Exits, Limits, Shape, subject
from ...scoring.exits.heads import Head
from ...scoring.exits.segmented_model import Trunk
from .collect import Observed, Question, observe
from .fit import Fitted, fit, levels
from .simulate import Outcome, simulate

Loss: TypeAlias = Literal["regret", "top-k miss"]
Floats: TypeAlias = NDArray[np.float64]
# Margins in residual deviations, from careful to bold.
_LEVELS = np.concatenate([np.linspace(6.0, 3.0, 7), np.linspace(2.9, 0.0, 30)])
_RATIOS = (0.25, 0.5, 1.0, 2.0)
# Candidates that enter per level, as a share of them; None: all enter. The most careful level
# lets all enter whichever is chosen.
_DEPTH_SHARES = (None, 0.2, 0.3, 0.4, 0.6)
# Shares of the first stage's softmax that a depth may hold, from careful to bold.
_MASSES = (1.0, 0.999, 0.998, 0.995, 0.99, 0.98, 0.97, 0.96, 0.95, 0.93, 0.9, 0.85, 0.8, 0.7, 0.6)
_COUNTS = (0, 4, 8, 12, 16, 24, 32, 48, 64, 100)
_FEWEST = 40
_NULLS_EACH = 3


@dataclass(frozen=True, slots=True)
class Plan:
    """What to calibrate: the loss, over which head, and how the prior is fused in."""

    top_k: int = 10
    loss: Loss = "regret"
    alpha: float = 0.01
    prior_weight: float = 0.0
    probability: Calibration | None = None
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Case:
    """One question as it is replayed: scores per exit, the model's, gains and pair lengths."""

    levels: list[Floats]
    final: Floats
    gains: Floats
    full: NDArray[np.intp]
    priors: Floats | None
    first_stage: tuple[float, ...] | None = None


@dataclass(frozen=True, slots=True)
class Calibrated:
    """The artefact, how good each head is, and the held-out cases it was certified on.

    `probability` turned scores into the gains that losses are reckoned in.
    """

    exits: Exits
    fitted: tuple[Fitted, ...]
    cases: tuple[Case, ...]
    probability: Calibration


def calibrate(
    trunk: Trunk,
    questions: Sequence[Question],
    how: Plan | None = None,
    *,
    costs: Sequence[float],
    progress: Callable[[], None] = lambda: None,
) -> Calibrated:
    """Fit, shape and certify exits; `costs` is what each segment takes per pair, in any unit.

    Raises `InvalidRequest` for too few questions.
    """
    how = how or Plan()
    if len(questions) < _FEWEST:
        message = (
            f"{len(questions)} queries; expected at least {_FEWEST}, better 300: half of them fit "
            "the heads, the other half certifies the loss"
        )
        raise InvalidRequest(message)
    return certify(trunk, questions, observe(trunk, questions, progress=progress), how, costs=costs)


def certify(
    trunk: Trunk,
    questions: Sequence[Question],
    observed: Sequence[Observed],
    how: Plan,
    *,
    costs: Sequence[float],
) -> Calibrated:
    """Do what `calibrate` does with what was `observed` of the questions already."""
    first, second = halves(len(questions), how.seed)
    fitted = fit([observed[i] for i in first], trunk.heads)
    heads = [one.head for one in fitted]
    deviations = [one.deviation for one in fitted]
    probability = how.probability or _typical([observed[i] for i in first], how.top_k)
    cases = [case_of(one, heads, trunk, how, probability) for one in observed]
    held = [cases[i] for i in second]
    shape, losses = shaped([cases[i] for i in first], held, deviations, costs, how)
    exits = Exits(
        subject(trunk.files, trunk.max_tokens, how.prior_weight),
        tuple(heads),
        shape,
        _LEVELS,
        losses,
        how.top_k,
        how.loss,
        nulls=nulls(trunk, questions, how.seed),
        plans=plan_qualities(held, len(heads) + 1, how),
        masses=np.array(_MASSES),
        mass_losses=_mass_losses(held, how),
        probability=probability,
        facts=_facts(trunk, questions, fitted, how),
    )
    return Calibrated(exits, tuple(fitted), tuple(held), probability)


def shaped(
    cases: Sequence[Case],
    held: Sequence[Case],
    deviations: Sequence[float],
    costs: Sequence[float],
    how: Plan,
) -> tuple[Shape, Floats]:
    """Choose the limits' shape by `cases`; also measure what its levels lose on those `held` out.

    `deviations` are the heads' residual ones; losses are [held, levels].
    """
    shape = _shape(cases, deviations, costs, how)
    losses = [[_loss(case, shape.at(level, how.top_k), how) for level in _LEVELS] for case in held]
    return shape, np.array(losses)


def halves(count: int, seed: int) -> tuple[list[int], list[int]]:
    """Divide queries at random: those that shape the exits, those that certify them."""
    order = np.random.default_rng(seed).permutation(count).tolist()
    return order[: count // 2], order[count // 2 :]


def replay(case: Case, limits: Limits | None, how: Plan) -> Outcome:
    """Replay one case within limits (None: everything runs)."""
    return simulate(
        case.levels,
        case.final,
        margins=None if limits is None else limits.margins,
        depth=None if limits is None else limits.depth,
        top_k=how.top_k,
        priors=case.priors,
        prior_weight=how.prior_weight,
    )


def loss_of(case: Case, order: Sequence[int] | NDArray[np.intp], how: Plan) -> float:
    """Measure what an order loses against the whole model's."""
    if how.loss == "regret":
        return risk_control.regret(list(order), case.gains, how.top_k)
    return risk_control.top_k_miss(list(order), case.full.tolist(), how.top_k)


def work(outcome: Outcome, costs: Sequence[float]) -> float:
    """Give an outcome's work as a share of the whole model's on all candidates."""
    return sum(s * c for s, c in zip(outcome.shares, costs, strict=True)) / sum(costs)


def nulls(trunk: Trunk, questions: Sequence[Question], seed: int) -> tuple[float, ...]:
    """Score random pairs: queries with passages that were retrieved for others, ascending."""
    random = np.random.default_rng(seed)
    strangers: list[Question] = []
    for place, question in enumerate(questions[:200]):
        others = random.integers(1, len(questions), _NULLS_EACH)
        texts = [questions[(place + int(step)) % len(questions)].passages for step in others]
        strangers.append(
            Question(question.query, tuple(t[int(random.integers(len(t)))] for t in texts))
        )
    found = observe(trunk, strangers)
    return tuple(sorted(float(score) for one in found for score in one.final))


def plan_qualities(cases: Sequence[Case], stages: int, how: Plan) -> dict[tuple[int, ...], float]:
    """Measure 1 - loss of plans: at most so many candidates at each stage."""
    longest = max(len(case.final) for case in cases)
    counts = [count for count in _COUNTS if count <= longest]
    found: dict[tuple[int, ...], float] = {}
    for rising in itertools.combinations_with_replacement(counts, stages):
        plan = rising[::-1]
        if plan[0] == 0 or (stages > 2 and plan[1] and plan[1] < plan[0] // 16):  # noqa: PLR2004
            continue
        values = [_counted(case, plan, how) for case in cases[:100]]
        found[plan] = 1.0 - float(np.mean(values))
    return found


def _counted(case: Case, plan: Sequence[int], how: Plan) -> float:
    outcome = simulate(
        case.levels,
        case.final,
        counts=plan,
        top_k=how.top_k,
        priors=case.priors,
        prior_weight=how.prior_weight,
    )
    return loss_of(case, outcome.order, how)


def case_of(
    one: Observed, heads: Sequence[Head], trunk: Trunk, how: Plan, probability: Calibration
) -> Case:
    """Prepare what was observed of a question for being replayed."""
    scores, final = levels(one, heads, trunk.options.fold)
    priors = one.priors if how.prior_weight else None
    whole = simulate(scores, final, top_k=how.top_k, priors=priors, prior_weight=how.prior_weight)
    values = final
    if priors is not None:
        # Gains follow the order that is returned, which the prior has a say in.
        values = np.sort(final)[::-1][np.argsort(whole.order)]
    gains = calibration.apply(probability, values.astype(np.float32))
    given = None if one.priors is None else tuple(one.priors.tolist())
    return Case(scores, final, gains, whole.order, priors, given)


def _loss(case: Case, limits: Limits, how: Plan) -> float:
    return loss_of(case, replay(case, limits, how).order, how)


def _mass_losses(cases: Sequence[Case], how: Plan) -> Floats:
    """Measure what scoring in full only the head with each mass of the priors loses.

    Empty where a case has no priors: nothing then says what a mass would leave out.
    """
    if any(case.first_stage is None for case in cases):
        return np.zeros((0, 0))
    losses = np.zeros((len(cases), len(_MASSES)))
    for row, case in zip(losses, cases, strict=True):
        for column, mass in enumerate(_MASSES):
            rule = selection.MassDepth(mass, min=how.top_k)
            count = selection.depth(rule, case.first_stage or ())
            row[column] = _counted(replace(case, levels=[]), [count], how)
    return losses


def _shape(
    cases: Sequence[Case], deviations: Sequence[float], costs: Sequence[float], how: Plan
) -> Shape:
    """Choose what costs least at a mean loss of alpha: ratios of the margins, and the depth's."""
    longest = max(len(case.final) for case in cases)
    best: tuple[float, Shape] | None = None
    inner = itertools.product(_RATIOS, repeat=len(deviations) - 1)
    for share, ratios in itertools.product(_DEPTH_SHARES, inner):
        scales = tuple(d * r for d, r in zip(deviations, (1.0, *ratios), strict=True))
        shape = Shape(scales, None if share is None else share * longest)
        low, high = 0.0, float(_LEVELS[0])
        for _ in range(7):
            middle = (low + high) / 2.0
            limits = shape.at(middle, how.top_k)
            mean = float(np.mean([_loss(case, limits, how) for case in cases]))
            low, high = (middle, high) if mean > how.alpha else (low, middle)
        limits = shape.at(high, how.top_k)
        spent = float(np.mean([work(replay(case, limits, how), costs) for case in cases]))
        if best is None or spent < best[0]:
            best = spent, shape
    return best[1] if best is not None else Shape(tuple(deviations))


def _typical(observed: Sequence[Observed], top_k: int) -> Calibration:
    """Give a logistic around the typical k-th best score, where the model has no calibration."""
    final = [one.final for one in observed]
    spread = float(np.mean([scores.std() for scores in final])) or 1.0
    bar = float(np.mean([np.sort(scores)[-min(top_k, len(scores))] for scores in final]))
    return Calibration(2.0 / spread, -2.0 * bar / spread)


def _facts(
    trunk: Trunk, questions: Sequence[Question], fitted: Sequence[Fitted], how: Plan
) -> dict[str, object]:
    sizes = [len(question.passages) for question in questions]
    return {
        "model": trunk.files.name,
        "quantisation": trunk.files.card.get("quantisation"),
        "queries": len(questions),
        "candidates": [min(sizes), max(sizes)],
        "shaped_for_alpha": how.alpha,
        "heads": [
            {"layer": one.head.layer, "deviation": one.deviation, "spearman": one.correlation}
            for one in fitted
        ],
    }
