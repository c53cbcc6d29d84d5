"""The stage loop: each stage scores who is left, then says who goes on."""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ..errors import InvalidRequest, ModelError, RemoteError, RerankError, Withheld
from ..records import Code, Decision, StageRun, Timing
from ..rules import calibration, keep
from ..rules.keep import MarginKeep
from ..rules.residency import Permit, Policy
from ..rules.selection import Sequential
from ..scoring import Scored, Scorer, Sends, Shortens, State
from . import residency, sequential
from .progress import Standing
from .residency import Parted
from .stage import Stage

# The share of the time left that a remote stage leaves to the fallback behind it: a fallback whose
# turn comes at the deadline cannot help.
_FALLBACK_SHARE = 0.35


@dataclass(frozen=True, slots=True)
class Course:
    """How far the stages go: per stage how many candidates at most (None: all that come).

    `stop` ends the first stage early, by `priors`: of the texts, and behind them of those that are
    not scored. Where the prior has a say in the order (`prior_weight`) it has the same one in who
    goes on. `care` widens margins, and lets more enter. Regular stages that can cut pairs to about
    `short_tokens` (None: not beyond what is configured).
    """

    counts: tuple[int | None, ...] = ()
    priors: tuple[float | None, ...] = ()
    stop: Sequential | None = None
    prior_weight: float = 0.0
    care: float = 1.0
    short_tokens: int | None = None

    def count(self, place: int) -> int | None:
        """Bound what the stage at `place` may score."""
        return self.counts[place] if place < len(self.counts) else None


async def run(
    stages: Sequence[Stage],
    query: str,
    texts: Sequence[str],
    *,
    permit: Permit | None = None,
    outage: Code | None = None,
    course: Course | None = None,
    deadline_s: float | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> Standing:
    """Run the stages over `texts`, which come best first; failures are recorded, not raised.

    Only `InvalidRequest` is raised.

    A stage that fails leaves its candidates where the stage before put them. Stages that send text
    run only as far as `permit` goes (None: no residency policy). An `outage` says why local stages
    cannot serve: they are passed over. The `course` bounds what each stage does.
    """
    permit = permit or Permit(Policy())
    course = course or Course()
    standing = Standing.start(len(texts))
    alive = list(range(len(texts)))
    state: State | None = None
    for place, stage in enumerate(stages):
        due = _due(stage, standing, alive, outage)
        if not due:
            continue
        alive, state = due, state if due is alive else None
        entering = entry(stage, len(alive), course.care)
        if entering < len(alive):
            decision = Decision("select", Code.DEPTH, len(alive) - entering, stage.scorer.name)
            standing.decisions.append(decision)
            alive, state = alive[:entering], state and state.take(range(entering))
        if course.count(place) == 0:
            skipped = Decision("budget", Code.STAGE_SKIPPED, len(alive), stage.scorer.name)
            standing.decisions.append(skipped)
            continue
        started = clock()
        limit_s = _stage_deadline_s(stages[place:], deadline_s, started)
        passages = [texts[i] for i in alive]
        try:
            scorer = residency.permitted(_fitted(stage, course), permit, query, passages)
            if course.stop is not None and place == 0 and not isinstance(scorer, Parted):
                priors = course.priors[: len(passages)]
                scored = await sequential.score(
                    scorer, query, passages, priors, course.stop, deadline_s=limit_s
                )
            else:
                scored = await scorer.score(query, passages, state=state, deadline_s=limit_s)
            _check(scored, len(alive), stage.scorer.name)
        except RerankError as error:
            _note_failure(standing, stage.scorer.name, error, len(alive), clock() - started)
            continue
        _note_place(standing, stage, scorer, texts, alive, depth=place + 1)
        standing.note_spread(scored.scores, scored.done, alive, depth=place + 1)
        _record(standing, stage, scored, alive, depth=place + 1)
        standing.timings.append(Timing("stage", clock() - started, stage.scorer.name))
        last = place == len(stages) - 1
        kept = _keep(standing, stage, alive, course, depth=place + 1, last=last)
        kept = kept[: course.count(place + 1) or None]
        state = scored.state and scored.state.take([alive.index(text) for text in kept])
        alive = kept
    return standing


def entry(stage: Stage, candidates: int, care: float = 1.0) -> int:
    """Count who enters a stage; `care` lets more of them in."""
    return candidates if stage.enter is None else min(candidates, math.ceil(care * stage.enter))


def _fitted(stage: Stage, course: Course) -> Scorer:
    """Give the stage's scorer, reading no more of each pair than was planned."""
    short, scorer = course.short_tokens, stage.scorer
    if short is None or stage.when != "always" or not isinstance(scorer, Shortens):
        return scorer
    return scorer.shortened(short)


def _due(stage: Stage, standing: Standing, alive: list[int], outage: Code | None) -> list[int]:
    """Name the texts that a stage is for, a fallback those that nothing before it could score."""
    if outage is not None and not isinstance(stage.scorer, Sends):
        return []
    return standing.waiting if stage.when == "fallback" and standing.scored else alive


def _note_place(
    standing: Standing,
    stage: Stage,
    scorer: Scorer,
    texts: Sequence[str],
    alive: Sequence[int],
    *,
    depth: int,
) -> None:
    """Note what the policy kept from a stage, and that a fallback took the place of others."""
    if isinstance(scorer, Parted):
        standing.hold([text for text in alive if texts[text] in scorer.held], depth)
    if stage.when == "fallback" and not standing.scored:
        standing.decisions.append(Decision("score", Code.FALLBACK, len(alive), stage.scorer.name))


def _note_failure(
    standing: Standing, name: str, error: RerankError, candidates: int, seconds: float
) -> None:
    """Record a failed stage. Raises the caller's mistake, for which no other stage makes up."""
    if isinstance(error, InvalidRequest):
        raise error
    # What a remote stage had sent stays on record, though nothing came of it.
    standing.decisions += error.decisions if isinstance(error, RemoteError) else ()
    if isinstance(error, Withheld):
        standing.withheld.append(error)
        standing.decisions.append(Decision("policy", Code.POLICY, candidates, str(error)))
        return
    standing.failures.append(error)
    standing.decisions.append(Decision("score", Code.STAGE_FAILED, candidates, f"{name}: {error}"))
    standing.timings.append(Timing("stage", seconds, name))
    standing.runs.append(StageRun(name, candidates, 0, error=type(error).__name__))


def _check(scored: Scored, passages: int, name: str) -> None:
    """Refuse an answer that cannot be ordered. Raises `ModelError`."""
    sizes = [len(one) for one in (scored.scores, scored.done, scored.truncated_tokens)]
    if sizes != [passages] * len(sizes):
        message = (
            f"{name} gave {sizes[0]} scores, {sizes[1]} done and {sizes[2]} truncated counts; "
            f"expected {passages} of each, one for every passage"
        )
        raise ModelError(message)
    bad = int((~np.isfinite(scored.scores[scored.done])).sum())
    if bad:
        message = f"{name} gave {bad} of {passages} scores that are not finite; expected numbers"
        raise ModelError(message)


def _stage_deadline_s(
    stages: Sequence[Stage], deadline_s: float | None, now_s: float
) -> float | None:
    """Say when the first of `stages` has to be done, so that a fallback behind it has its time."""
    if deadline_s is None or not isinstance(stages[0].scorer, Sends):
        return deadline_s
    if not any(stage.when == "fallback" for stage in stages[1:]):
        return deadline_s
    return deadline_s - _FALLBACK_SHARE * (deadline_s - now_s)


def _record(
    standing: Standing, stage: Stage, scored: Scored, alive: Sequence[int], depth: int
) -> None:
    name = stage.scorer.name
    probabilities = (
        calibration.apply(stage.calibration, scored.scores) if stage.calibration else None
    )
    for place, text in enumerate(alive):
        standing.truncated_tokens[text] = int(scored.truncated_tokens[place])
        if scored.done[place]:
            standing.depths[text] = depth
            standing.scores[text] = float(scored.scores[place])
            standing.stages[text] = name
            standing.probabilities[text] = (
                None if probabilities is None else float(probabilities[place])
            )
    standing.timings += [Timing(one.step, one.seconds, name) for one in scored.timings]
    standing.decisions += scored.decisions
    standing.usage += scored.usage
    standing.runs.append(StageRun(name, len(alive), int(scored.done.sum()), scored.usage))


def _keep(
    standing: Standing,
    stage: Stage,
    alive: Sequence[int],
    course: Course,
    *,
    depth: int,
    last: bool,
) -> list[int]:
    """Choose who goes on, best first, among those this stage scored; note who is settled."""
    done = [text for text in alive if standing.depths[text] == depth]
    if last:
        return done
    chances = [standing.probabilities[text] for text in done]
    rule = stage.keep
    if isinstance(rule, MarginKeep):
        rule = replace(rule, margin=course.care * rule.margin)
    kept = keep.apply(
        rule,
        standing.keys(done, course.priors, course.prior_weight, depth),
        None if stage.calibration is None else [one for one in chances if one is not None],
    )
    for place in kept.settled:
        standing.settled[done[place]] = True
    if stage.keep is not None:
        name = stage.scorer.name
        detail = f"{name}: {stage.keep.promise}" if isinstance(stage.keep, MarginKeep) else name
        standing.decisions.append(Decision("keep", Code.KEPT, len(kept.on), detail.rstrip(": ")))
    if kept.settled:
        decision = Decision("keep", Code.EXITED, len(kept.settled), stage.scorer.name)
        standing.decisions.append(decision)
    return [done[place] for place in kept.on]
