"""The records that travel along the data path: frozen, slotted, and free of behaviour."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum


class Code(Enum):
    """Why something was chosen or left out: the closed list of decision codes."""

    BLANK = ("blank", "Empty, blank or missing passages: not scored, kept at the bottom.")
    PRIORS_RISE = (
        "priors_rise",
        "First-stage scores rise down the list, as distances do: they were not used.",
    )
    DUPLICATE = ("duplicate", "Passages with the same text as an earlier one: scored once.")
    TRUNCATED = ("truncated", "Passages of which some tokens were not read by the model.")
    WINDOWED = ("windowed", "Long passages scored in overlapping windows.")
    TOO_LONG = ("too_long", 'Passages over the token limit under long = "error": not scored.')
    NOT_WARM = ("not_warm", "The model was not warm and the request did not wait for it.")
    DEPTH = ("depth", "Candidates beyond the chosen depth: not scored.")
    KEPT = ("kept", "Candidates that went on to the next stage.")
    CUT = ("cut", "Candidates ranked but not returned: top_k or an adaptive cut.")
    DEADLINE = ("deadline", "Candidates not scored because the budget would not have held.")
    PLAN = ("plan", "A cheaper plan was chosen so that the budget holds.")
    STAGE_FAILED = ("stage_failed", "A stage failed; its candidates keep their previous order.")
    STAGE_SKIPPED = ("stage_skipped", "A stage did not run: not needed, or not affordable.")
    FALLBACK = ("fallback", "A fallback stage ran in place of one that could not serve.")
    PASS_THROUGH = ("pass_through", "Nothing could be scored: the first-stage order is returned.")
    OVERLOADED = ("overloaded", "The queue was full; the request was not started.")
    POLICY = ("policy", "Text was kept from a destination by the residency policy.")
    SENT = ("sent", "Candidates whose text was sent to a remote destination.")
    RETRIED = ("retried", "Remote calls that were repeated.")
    FUSED = ("fused", "Candidates ordered by a fusion of model score and prior.")
    GUARD = ("guard", "The drift guard changed how this request was served.")
    CONTROL = ("control", "Answered in first-stage order, for the guard to compare feedback with.")
    DRIFT = ("drift", "Requests moved away from the guard's snapshot; nothing was changed.")
    GRAPH = ("graph", "A graph rewrite was not used; the model runs as it was exported.")
    KERNELS = (
        "kernels",
        "Which kernels run, and why: a card vouches for int8, or int8 was asked for in vain.",
    )

    def __init__(self, code: str, meaning: str) -> None:
        self.code = code
        self.meaning = meaning


DEGRADING = frozenset(
    {
        Code.DEADLINE,
        Code.FALLBACK,
        Code.GUARD,
        Code.NOT_WARM,
        Code.OVERLOADED,
        Code.PASS_THROUGH,
        Code.PLAN,
        Code.STAGE_FAILED,
        Code.TOO_LONG,
    }
)
"""What tells that anything but the configured plan produced an order."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """One hit of the first stage.

    text: None or blank text is never scored and never lost
    prior: the first stage's score, on any scale, higher is better; None: unknown
    metadata: read for residency only
    """

    text: str | None
    prior: float | None = None
    metadata: Mapping[str, object] | None = None


@dataclass(frozen=True, slots=True)
class Budget:
    """How long a request may take, in seconds from the moment it is submitted; None is no limit."""

    time_s: float | None = None


@dataclass(frozen=True, slots=True)
class Request:
    """A query, its candidates in first-stage order, and what is wanted of them.

    top_k: hits to return; None: the reranker's default, or all
    budget: how long the request may take
    strict: raise an error where the result would be degraded; None: the reranker's default
    """

    query: str
    candidates: tuple[Candidate, ...]
    top_k: int | None = None
    budget: Budget = field(default_factory=Budget)
    strict: bool | None = None


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds spent in one step, of one stage where the step belongs to one.

    A result lists them in the order they happened; the steps of a stage come right before its own
    entry, "stage", which spans them, and "total" spans everything.
    """

    step: str
    seconds: float
    stage: str | None = None


def stages_s(timings: Iterable[Timing]) -> float:
    """Return the seconds that the stages took together, which is what plans predict."""
    return sum(timing.seconds for timing in timings if timing.step == "stage")


@dataclass(frozen=True, slots=True)
class Decision:
    """A recorded choice: which step made it, why, and for how many candidates."""

    step: str
    code: Code
    count: int
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Usage:
    """What the request cost.

    pairs, tokens: read by models; tokens count no padding
    padding_tokens: wasted on top of `tokens`
    truncated_tokens: not read, because a passage was too long
    token_cache_hits, score_cache_hits: passages and pairs that were remembered
    remote_calls: calls to remote destinations
    billed_units: what those said they charge, each in its own unit
    """

    pairs: int = 0
    tokens: int = 0
    padding_tokens: int = 0
    truncated_tokens: int = 0
    batches: int = 0
    token_cache_hits: int = 0
    score_cache_hits: int = 0
    remote_calls: int = 0
    billed_units: float = 0.0

    def __add__(self, other: "Usage") -> "Usage":
        return Usage(*(getattr(self, name) + getattr(other, name) for name in self.__slots__))


@dataclass(frozen=True, slots=True)
class StageRun:
    """What one stage did.

    candidates, scored: how many it was given, and how many of them it scored
    usage: what that cost
    error: the name of the error that ended it, if any
    """

    stage: str
    candidates: int
    scored: int
    usage: Usage = field(default_factory=Usage)
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Hit:
    """One candidate of the result.

    index: its place in the caller's list
    score: the model's own score; None: not scored, or by a fallback, on a scale that no threshold
        of the caller's fits
    probability: calibrated probability of relevance; None: the stage is not calibrated
    fused: orders instead of `score` where the prior was fused in
    prior: the first stage's score
    stage: name of the last stage that scored it
    depth: how many stages scored it
    truncated_tokens: tokens of the passage that were not read
    relevance: what adapters and the server show, and what thresholds read: the calibrated
        probability, else the logistic function of a logit, else the scorer's own number; a
        fallback's too; None: not scored
    score_kind: what the scorer's numbers are, such as "logit" or "probability"; None: not scored
    """

    index: int
    score: float | None
    probability: float | None = None
    fused: float | None = None
    prior: float | None = None
    stage: str | None = None
    depth: int = 0
    truncated_tokens: int = 0
    relevance: float | None = None
    score_kind: str | None = None


@dataclass(frozen=True, slots=True)
class Result:
    """The order, and how it came about.

    hits: best first, cut to what was asked for
    order: a permutation of all candidates' places, best first
    timings: seconds of each step
    decisions: what was chosen or left out, and why
    usage: what the request cost
    degraded: true if anything but the configured plan produced the order
    stages: what each stage did
    predicted_s: what the stages were expected to take; None: no budget, or no cost known yet
    """

    hits: tuple[Hit, ...]
    order: tuple[int, ...]
    request_id: str
    model: str
    timings: tuple[Timing, ...] = ()
    decisions: tuple[Decision, ...] = ()
    usage: Usage = field(default_factory=Usage)
    degraded: bool = False
    stages: tuple[StageRun, ...] = ()
    predicted_s: float | None = None

    @classmethod
    def first_stage(
        cls,
        candidates: Sequence[Candidate],
        *,
        request_id: str,
        model: str,
        decisions: tuple[Decision, ...] = (),
        seconds: float | None = None,
        degraded: bool = True,
    ) -> "Result":
        """Return a result in which nothing is scored: every candidate, in first-stage order.

        seconds: what the request took; None: no timing
        """
        return cls(
            tuple(Hit(i, None, prior=candidate.prior) for i, candidate in enumerate(candidates)),
            tuple(range(len(candidates))),
            request_id=request_id,
            model=model,
            timings=() if seconds is None else (Timing("total", seconds),),
            decisions=decisions,
            degraded=degraded,
        )

    def __iter__(self) -> Iterator[Hit]:
        return iter(self.hits)

    def __len__(self) -> int:
        return len(self.hits)

    def __getitem__(self, position: int) -> Hit:
        return self.hits[position]
