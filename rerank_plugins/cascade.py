"""The stage loop: each stage scores who is left, then says who goes on."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from . import calibration, fusion
from .calibration import Calibration
from .errors import RerankError
from .records import Code, Decision, Timing, Usage
from .scorers import Scored, Scorer, State

When: TypeAlias = Literal["always", "fallback"]


@dataclass(frozen=True, slots=True)
class Stage:
    """A scorer and its keep rule.

    `keep` is how many candidates go on to the next stage (None: all). A "fallback" stage runs only
    where no stage before it could score.
    """

    scorer: Scorer
    keep: int | None = None
    when: When = "always"
    calibration: Calibration | None = None


@dataclass(slots=True)
class Standing:
    """Where every text stands after the stages so far; lists are per text."""

    depths: list[int]
    scores: list[float | None]
    probabilities: list[float | None]
    stages: list[str | None]
    truncated_tokens: list[int]
    timings: list[Timing] = field(default_factory=list)
    decisions: list[Decision] = field(default_factory=list)
    usage: Usage = field(default_factory=Usage)
    failures: list[RerankError] = field(default_factory=list)

    @classmethod
    def start(cls, texts: int) -> "Standing":
        """Give the standing before the first stage: nothing scored."""
        return cls([0] * texts, [None] * texts, [None] * texts, [None] * texts, [0] * texts)

    @property
    def scored(self) -> int:
        """How many texts have a score."""
        return sum(depth > 0 for depth in self.depths)


async def run(
    stages: Sequence[Stage],
    query: str,
    texts: Sequence[str],
    *,
    deadline_s: float | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> Standing:
    """Run the stages over `texts`, which come best first; failures are recorded, not raised.

    A stage that fails leaves its candidates where the stage before put them.
    """
    standing = Standing.start(len(texts))
    alive = list(range(len(texts)))
    state: State | None = None
    for place, stage in enumerate(stages):
        if not alive or (stage.when == "fallback" and standing.scored):
            continue
        name = stage.scorer.name
        started = clock()
        try:
            scored = await stage.scorer.score(
                query, [texts[i] for i in alive], state=state, deadline_s=deadline_s
            )
        except RerankError as error:
            standing.failures.append(error)
            standing.decisions.append(
                Decision("score", Code.STAGE_FAILED, len(alive), f"{name}: {error}")
            )
            continue
        if stage.when == "fallback":
            standing.decisions.append(Decision("score", Code.FALLBACK, len(alive), name))
        _record(standing, stage, scored, alive, depth=place + 1)
        standing.timings.append(Timing("stage", clock() - started, name))
        state = scored.state
        alive = _keep(standing, stage, alive, depth=place + 1, last=place == len(stages) - 1)
    return standing


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


def _keep(
    standing: Standing, stage: Stage, alive: Sequence[int], *, depth: int, last: bool
) -> list[int]:
    """Choose who goes on, best first: those this stage scored, up to its keep rule."""
    done = [text for text in alive if standing.depths[text] == depth]
    order = fusion.merge([1] * len(done), [standing.scores[text] for text in done])
    kept = [done[i] for i in order][: stage.keep]
    if not last and stage.keep is not None:
        standing.decisions.append(Decision("keep", Code.KEPT, len(kept), stage.scorer.name))
    return kept
