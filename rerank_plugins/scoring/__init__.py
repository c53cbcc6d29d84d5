"""The seam between the engine and whatever gives scores."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol, TypeAlias, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from ..records import Decision, Timing, Usage
from ..rules.residency import Destination, Permit

ScoreKind: TypeAlias = Literal["logit", "probability", "cosine", "lexical", "vendor", "slate"]
"""What a scorer's numbers are; "slate" scores only compare within one call."""

RELATIVE: frozenset[ScoreKind] = frozenset({"lexical", "slate"})
"""Numbers that depend on what else is scored in the same call; never cached, never in parts."""

BreakerState: TypeAlias = Literal["closed", "half-open", "open"]
"""Whether calls to a destination go out, are probed one by one, or are held back."""


@runtime_checkable
class State(Protocol):
    """What a scorer hands to the next stage of the same origin, such as hidden states.

    It has a row for each passage scored, in their order. A scorer ignores a state of another
    `origin`.
    """

    @property
    def origin(self) -> str:
        """Identify the model, its weights included, that can go on from this state."""

    def take(self, places: Sequence[int]) -> "State":
        """Give the state of the survivors, in the order of `places`."""

    def join(self, others: Sequence["State"]) -> "State":
        """Put the rows of `others`, which have the same origin, behind these."""


@dataclass(frozen=True, slots=True)
class Scored:
    """A scorer's answer for n passages, in the order they were given.

    `scores` [n] float32 are finite where `done` [n] is true and meaningless elsewhere;
    `truncated_tokens` [n] counts the tokens of each passage that the model did not read.
    """

    scores: NDArray[np.float32]
    done: NDArray[np.bool_]
    truncated_tokens: NDArray[np.int64]
    state: State | None = None
    timings: tuple[Timing, ...] = ()
    decisions: tuple[Decision, ...] = ()
    usage: Usage = field(default_factory=Usage)


class Scorer(Protocol):
    """Scores passages against a query. Thread-safe; complete once constructed.

    `score` may await `jobs.run_jobs` and `jobs.wait`, and nothing else; it runs on the
    scheduler's worker threads, so whatever it does between is bounded CPU work.
    """

    @property
    def name(self) -> str:
        """Name the model, as spans and results show it."""

    @property
    def score_kind(self) -> ScoreKind:
        """Say what the numbers are."""

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
        """Say where the texts go."""

    def under(self, permit: Permit) -> Scorer:
        """Give the same scorer for one request, bound to what that request may do."""


@runtime_checkable
class Priced(Protocol):
    """A scorer that knows what its work costs, so that a budget can plan with it."""

    def price_s(self, chars: Sequence[int]) -> float:
        """Predict worker seconds per pair for passages of so many characters; 0.0: unknown."""


@runtime_checkable
class Reads(Protocol):
    """A priced scorer that reads all passages on one worker before it computes on several."""

    def read_s(self, chars: Sequence[int]) -> float:
        """Predict what reading takes of `price_s`, in seconds per pair."""


@runtime_checkable
class Shortens(Protocol):
    """A scorer that can read less of each passage, for plans that a calibration vouches for."""

    def shortened(self, max_tokens: int) -> Scorer:
        """Give the same scorer, cutting passages so that pairs have about `max_tokens` at most."""


@runtime_checkable
class Breakable(Protocol):
    """A scorer whose destination is left alone for a while when it keeps failing."""

    @property
    def destination(self) -> Destination:
        """Say where the texts go."""

    @property
    def breaker_state(self) -> BreakerState:
        """Say whether calls go out."""
