"""The stage loop: each stage scores who is left, then says who goes on."""

from collections.abc import Sequence
from dataclasses import replace

from ..errors import RemoteError, RerankError, Withheld
from ..records import Code, Decision, StageRun, Timing
from ..rules import calibration, keep
from ..rules.deadline import FALLBACK_SHARE
from ..rules.keep import MarginKeep
from ..rules.residency import Permit
from ..scoring import Scored, Scorer, Sends, Shortens, State, as_model_error
from . import residency
from .limits import StageLimits, entering
from .progress import Progress
from .residency import FilteredScorer
from .run import Run
from .stage import Stage


async def score(
    stages: Sequence[Stage],
    query: str,
    texts: Sequence[str],
    *,
    permit: Permit,
    limits: StageLimits,
    run: Run,
) -> Progress:
    """Return what the stages found out about `texts`, which come best first.

    A stage that fails leaves its texts where the stage before put them; the failure is recorded.
    Raises nothing. Stages that send text run as far as `permit` goes. Where
    `run.local_outage` says that local stages cannot serve, they are passed over.
    """
    progress = Progress.start(len(texts))
    alive = list(range(len(texts)))
    state: State | None = None
    for place, stage in enumerate(stages):
        due = _due(stage, progress, alive, run.local_outage)
        if not due:
            continue
        alive, state = due, state if due is alive else None
        entered = entering(stage, len(alive), limits.margin_factor)
        if entered < len(alive):
            left_out = Decision("select", Code.DEPTH, len(alive) - entered, stage.scorer.name)
            progress.decisions.append(left_out)
            alive, state = alive[:entered], _survivors(state, range(entered))
        if limits.count(place) == 0:
            progress.skip(stage.scorer.name, len(alive))
            continue
        started_s = run.clock()
        passages = [texts[slot] for slot in alive]
        try:
            scorer = residency.permitted(_shortened(stage, limits), permit, query, passages)
            deadline_s = _stage_deadline_s(stages[place:], run.deadline_s, started_s)
            scored = await scorer.score(query, passages, state=state, deadline_s=deadline_s)
            scored.check(len(alive), stage.scorer.name)
        except Exception as error:  # noqa: BLE001 - a scorer may raise anything
            failure = as_model_error(error, stage.scorer.name)
            _record_failure(progress, stage, failure, len(alive), run.clock() - started_s)
            continue
        _record(progress, stage, scorer, scored, alive, texts, depth=place + 1)
        progress.timings.append(Timing("stage", run.clock() - started_s, stage.scorer.name))
        last = place == len(stages) - 1
        kept = _keep(progress, stage, alive, limits, depth=place + 1, last=last)
        kept = kept[: limits.count(place + 1) or None]
        state = _survivors(scored.state, [alive.index(slot) for slot in kept])
        alive = kept
    return progress


def _survivors(state: State | None, places: Sequence[int]) -> State | None:
    """Return the state of who goes on; without it, the next stage starts from the texts."""
    try:
        return state and state.take(places)
    except Exception:  # noqa: BLE001 - a scorer's state may raise anything
        return None


def _shortened(stage: Stage, limits: StageLimits) -> Scorer:
    """Return the stage's scorer, reading no more of each pair than was planned."""
    short, scorer = limits.short_tokens, stage.scorer
    if short is None or stage.when != "always" or not isinstance(scorer, Shortens):
        return scorer
    return scorer.shortened(short)


def _due(
    stage: Stage, progress: Progress, alive: list[int], local_outage: Code | None
) -> list[int]:
    """Return the slots that a stage is for; a fallback is for those that nothing could score."""
    if local_outage is not None and not isinstance(stage.scorer, Sends):
        return []
    return progress.waiting if stage.when == "fallback" and progress.scored else alive


def _stage_deadline_s(
    stages: Sequence[Stage], deadline_s: float | None, now_s: float
) -> float | None:
    """Return when the first of `stages` has to be done, so that a fallback behind it has time."""
    if deadline_s is None or not isinstance(stages[0].scorer, Sends):
        return deadline_s
    if not any(stage.when == "fallback" for stage in stages[1:]):
        return deadline_s
    return deadline_s - FALLBACK_SHARE * (deadline_s - now_s)


def _record_failure(
    progress: Progress, stage: Stage, error: RerankError, candidates: int, seconds: float
) -> None:
    """Record a failed stage. A query that is too long for it may still suit another stage."""
    # What a remote stage had sent stays on record, though nothing came of it.
    progress.decisions += error.decisions if isinstance(error, RemoteError) else ()
    if isinstance(error, Withheld):
        progress.withheld_errors.append(error)
        progress.decisions.append(Decision("policy", Code.POLICY, candidates, str(error)))
        return
    name = stage.scorer.name
    progress.failures.append(error)
    progress.decisions.append(Decision("score", Code.STAGE_FAILED, candidates, f"{name}: {error}"))
    progress.timings.append(Timing("stage", seconds, name))
    progress.runs.append(StageRun(name, candidates, 0, error=type(error).__name__))


def _record(  # noqa: PLR0917 - what ran, over what, and what it gave
    progress: Progress,
    stage: Stage,
    scorer: Scorer,
    scored: Scored,
    alive: Sequence[int],
    texts: Sequence[str],
    *,
    depth: int,
) -> None:
    """Record what a stage gave, what the policy kept from it, and whether it was a fallback."""
    name = stage.scorer.name
    if isinstance(scorer, FilteredScorer):
        progress.withhold([slot for slot in alive if texts[slot] in scorer.withheld], depth)
    if stage.when == "fallback" and not progress.scored:
        progress.decisions.append(Decision("score", Code.FALLBACK, len(alive), name))
    progress.note_spread(scored.scores, scored.done, alive, depth=depth)
    probabilities = None
    if stage.calibration is not None:
        probabilities = calibration.apply(stage.calibration, scored.scores).tolist()
    for place, slot in enumerate(alive):
        progress.truncated_tokens[slot] = int(scored.truncated_tokens[place])
        if scored.done[place]:
            progress.depths[slot] = depth
            progress.scores[slot] = float(scored.scores[place])
            progress.stages[slot] = name
            progress.probabilities[slot] = probabilities and probabilities[place]
    progress.timings += [Timing(step.step, step.seconds, name) for step in scored.timings]
    progress.decisions += scored.decisions
    progress.usage += scored.usage
    progress.runs.append(StageRun(name, len(alive), int(scored.done.sum()), scored.usage))


def _keep(
    progress: Progress,
    stage: Stage,
    alive: Sequence[int],
    limits: StageLimits,
    *,
    depth: int,
    last: bool,
) -> list[int]:
    """Return who goes on, best first, among those that this stage scored."""
    done = [slot for slot in alive if progress.depths[slot] == depth]
    if last:
        return done
    rule = stage.keep
    if isinstance(rule, MarginKeep):
        rule = replace(rule, margin=limits.margin_factor * rule.margin)
    chances = [chance for slot in done if (chance := progress.probabilities[slot]) is not None]
    kept = keep.apply(
        rule,
        progress.keys(done, limits.priors, limits.prior_weight, depth),
        None if stage.calibration is None else chances,
    )
    if stage.keep is not None:
        promise = stage.keep.promise if isinstance(stage.keep, MarginKeep) else ""
        detail = f"{stage.scorer.name}: {promise}".rstrip(": ")
        progress.decisions.append(Decision("keep", Code.KEPT, len(kept), detail))
    return [done[place] for place in kept]
