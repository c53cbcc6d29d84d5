"""The seam between the engine and whatever computes scores."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, Protocol, TypeAlias, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from ..errors import ModelError, RerankError
from ..records import Decision, Timing, Usage
from ..rules.residency import Destination, Permit

Floats: TypeAlias = NDArray[np.float32]
ScoreKind: TypeAlias = Literal["logit", "probability", "cosine", "lexical", "vendor", "slate"]
"""What a scorer's numbers are; "slate" scores can be compared within one call only."""

RELATIVE: frozenset[ScoreKind] = frozenset({"lexical", "slate"})
"""Kinds that depend on what else is scored in the same call; never cached, never in parts."""

BreakerState: TypeAlias = Literal["closed", "half-open", "open"]
"""Whether calls to a destination go out, are probed one by one, or are held back."""


@runtime_checkable
class State(Protocol):
    """What a scorer hands to the next stage of the same origin, such as hidden states.

    It has a row for each passage, in their order. A scorer ignores a state of another `origin`.
    """

    @property
    def origin(self) -> str:
        """Identify the model, its weights included, that can continue from this state."""

    def take(self, places: Sequence[int]) -> "State":
        """Return the state of the survivors, in the order of `places`."""


@dataclass(frozen=True, slots=True)
class Scored:
    """A scorer's results for n passages, in the order in which they were given.

    scores: [n] float32, finite where `done` is true and meaningless elsewhere
    done: [n], true where a passage was scored
    truncated_tokens: [n] tokens of each passage that the model did not read
    state: what the next stage of the same origin can go on from
    """

    scores: Floats
    done: NDArray[np.bool_]
    truncated_tokens: NDArray[np.int64]
    state: State | None = None
    timings: tuple[Timing, ...] = ()
    decisions: tuple[Decision, ...] = ()
    usage: Usage = field(default_factory=Usage)

    def scatter(self, places: Sequence[int], n: int) -> "Scored":
        """Return results for n passages: these at `places`, the others not done, and no state."""
        scores, done = np.zeros(n, np.float32), np.zeros(n, np.bool_)
        truncated_tokens = np.zeros(n, np.int64)
        index = list(places)
        scores[index], done[index] = self.scores, self.done
        truncated_tokens[index] = self.truncated_tokens
        return replace(
            self, scores=scores, done=done, truncated_tokens=truncated_tokens, state=None
        )

    def check(self, n: int, name: str) -> None:
        """Raise `ModelError` unless there are n results and the scores can be ordered."""
        kinds = {"scores": "fiu", "done": "b", "truncated_tokens": "fiu"}
        for field_name, kind in kinds.items():
            array = np.asarray(getattr(self, field_name))
            if array.ndim != 1 or (array.size and array.dtype.kind not in kind):
                message = (
                    f"{name} gave {field_name} of type {array.dtype} with {array.ndim} axes; "
                    "expected arrays with one axis: float32 scores, bool done, int64 counts"
                )
                raise ModelError(message)
        sizes = [len(self.scores), len(self.done), len(self.truncated_tokens)]
        if sizes != [n] * len(sizes):
            message = (
                f"{name} gave {sizes[0]} scores, {sizes[1]} done and {sizes[2]} truncated counts; "
                f"expected {n} of each, one for every passage"
            )
            raise ModelError(message)
        check_finite(self.scores[self.done], name, "expected numbers")


def as_model_error(error: Exception, name: str) -> RerankError:
    """Return what a scorer raised as one of our errors.

    Another's error is named by its class: its text may quote a caller's. It is the cause.
    """
    if isinstance(error, RerankError):
        return error
    found = ModelError(f"{name} raised {type(error).__name__}; strict=True shows where")
    found.__cause__ = error
    return found


def check_finite(scores: Floats, name: str, advice: str) -> None:
    """Raise `ModelError` if any score is not finite; `advice` ends its message."""
    bad = int((~np.isfinite(scores)).sum())
    if bad:
        message = f"{name} gave {bad} of {len(scores)} scores that are not finite; {advice}"
        raise ModelError(message)


class Scorer(Protocol):
    """Scores passages against a query. Thread-safe; complete once constructed.

    `score` may await `jobs.run_jobs` and `jobs.wait`, and nothing else; it runs on the
    scheduler's worker threads, so whatever it does between is bounded CPU work.
    """

    @property
    def name(self) -> str:
        """The model's name in spans and results."""

    @property
    def score_kind(self) -> ScoreKind:
        """What the numbers are."""

    async def score(
        self,
        query: str,
        passages: Sequence[str],
        *,
        state: State | None = None,
        deadline_s: float | None = None,
    ) -> Scored:
        """Score non-blank `passages`, which come best first; stop in time for `deadline_s`.

        The deadline is an instant of the monotonic clock. Raises `ModelError` or `RemoteError`.
        """

    def warm_up(self) -> None:
        """Run real shapes so that the first request is as fast as the next; idempotent."""

    def close(self) -> None:
        """Release what the scorer holds."""


@runtime_checkable
class Sends(Protocol):
    """A scorer whose texts leave this process.

    It scores only under a permit, which it asks again at the moment of sending.
    """

    @property
    def destination(self) -> Destination:
        """Where the texts go."""

    def under(self, permit: Permit) -> Scorer:
        """Return the same scorer for one request, bound to what that request may do."""


@runtime_checkable
class Priced(Protocol):
    """A scorer that knows what its work costs, so that a budget can plan with it."""

    def price_s(self, chars: Sequence[int]) -> float:
        """Predict worker seconds per pair for passages of so many characters; 0.0: unknown."""


@runtime_checkable
class Reads(Protocol):
    """A priced scorer that tokenises all passages on one worker before it computes on several."""

    def read_s(self, chars: Sequence[int]) -> float:
        """Predict what tokenising takes of `price_s`, in seconds per pair."""


@runtime_checkable
class Shortens(Protocol):
    """A scorer that can read less of each passage, for plans whose quality was measured."""

    def shortened(self, max_tokens: int) -> Scorer:
        """Return the same scorer, cutting passages so that pairs have `max_tokens` at most."""


@runtime_checkable
class Breakable(Protocol):
    """A scorer whose destination is left alone for a while when it keeps failing."""

    @property
    def destination(self) -> Destination:
        """Where the texts go."""

    @property
    def breaker_state(self) -> BreakerState:
        """Whether calls go out."""
