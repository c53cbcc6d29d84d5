"""A remote reranker as a scorer: what is sent, under which permit, and what comes of it."""

import random
import time
from collections.abc import Callable, Sequence

import httpx
import numpy as np

from ..errors import RemoteError, Withheld
from ..records import Code, Decision, Timing, Usage
from ..rules.residency import Destination, Permit
from ..scoring import BreakerState, Scored, ScoreKind, State
from ..scoring.runtime.jobs import wait
from .auth import check_signer
from .call_context import Errand
from .calls import Calls
from .chunking import is_blank
from .client import Client
from .options import RemoteOptions, resolve
from .payload import Cargo, Reader, Texts

# Time kept for coming back from the client's thread and putting the order together.
_RETURN_S = 0.005


class RemoteScorer:
    """Scores by a provider's rerank API. Thread-safe.

    Its texts go to `destination`, and only under a permit: `under(permit).score(...)`. `transport`
    makes what replaces the network in tests. Raises `ConfigError` for options that do not fit
    together, and `PolicyError` for a region that the URL contradicts.
    """

    def __init__(
        self,
        options: RemoteOptions,
        *,
        transport: Callable[[], httpx.AsyncBaseTransport] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.target = resolve(options)
        check_signer(self.target.provider.auth)
        self.name = self.target.name
        self.score_kind: ScoreKind = self.target.score_kind
        self.destination: Destination = self.target.destination
        self.reader = None if options.reading is None else Reader(options.reading)
        self.client = Client(options.client, transport=transport)
        self.calls = Calls(self.target, options, self.client, clock=clock, share=random.random)
        self.clock = clock

    @property
    def breaker_state(self) -> BreakerState:
        """Say whether calls go out, are probed, or are held back for now."""
        return self.calls.breaker.state

    def load(self, query: str, texts: Sequence[str]) -> Cargo:
        """Make what is sent for `texts`. Raises `InvalidRequest` for a query beyond the model."""
        if self.reader is not None:
            return self.reader.read(query, texts)
        return Texts.cut(texts, self.target.caps.document_chars)

    def under(self, permit: Permit) -> "PermittedScorer":
        """Give this scorer for one request."""
        return PermittedScorer(self, permit)

    async def score(
        self,
        query: str,  # noqa: ARG002 - refused unread
        passages: Sequence[str],  # noqa: ARG002
        *,
        state: State | None = None,  # noqa: ARG002
        deadline_s: float | None = None,  # noqa: ARG002
    ) -> Scored:
        """Refuse: without a permit nothing may be sent. Raises `Withheld`."""
        message = f"{self.name} was asked without a permit; use under(permit).score(...)"
        raise Withheld(message)

    def warm_up(self) -> None:
        """Load this side's part; a destination is not ours to warm, and no text is sent to it."""
        self.client.warm_up()

    def close(self) -> None:
        """Cancel the calls under way and close the connections."""
        self.client.close()


class PermittedScorer:
    """A remote scorer for one request, bound to what that request may do."""

    def __init__(self, scorer: RemoteScorer, permit: Permit) -> None:
        self.name = scorer.name
        self.score_kind: ScoreKind = scorer.score_kind
        self._scorer = scorer
        self._permit = permit

    async def score(
        self,
        query: str,
        passages: Sequence[str],
        *,
        state: State | None = None,  # noqa: ARG002 - no remote API goes on from hidden states
        deadline_s: float | None = None,
    ) -> Scored:
        """Score all passages that show something. Raises `RemoteError` or `Withheld`."""
        n = len(passages)
        target, clock = self._scorer.target, self._scorer.clock
        places = [i for i, text in enumerate(passages) if not is_blank(text)][: target.slate]
        started = clock()
        cargo = self._scorer.load(query, [passages[i] for i in places])
        errand = Errand(
            target.lead + query,
            cargo,
            self._permit,
            started,
            None if deadline_s is None else deadline_s - _RETURN_S,
        )
        scores = np.zeros(n, dtype=np.float32)
        done = np.zeros(n, dtype=np.bool_)
        tokens = np.zeros(n, dtype=np.int64)
        tokens[places] = cargo.truncated
        decisions = _left_out(n, len(places), target.slate)
        if places:
            try:
                call = self._scorer.client.submit(self._scorer.calls.score(errand))
                found = await wait(call, owned=True)
            except RemoteError as error:
                error.decisions = (*error.decisions, *self._decisions(errand))
                raise
            scores[places], done[places], said = cargo.unload(found)
            decisions += said
        tally = errand.tally
        timings = [Timing("remote_call", clock() - started)]
        timings += [Timing(step, seconds) for step, seconds in tally.seconds.items()]
        return Scored(
            scores,
            done,
            tokens,
            timings=tuple(timings),
            decisions=(*decisions, *self._decisions(errand)),
            usage=Usage(
                pairs=len(cargo.texts),
                tokens=tally.tokens or cargo.tokens,
                truncated_tokens=int(tokens.sum()),
                remote_calls=tally.calls,
                billed_units=tally.billed_units,
            ),
        )

    def warm_up(self) -> None:
        """Do nothing, as the scorer itself."""

    def close(self) -> None:
        """Do nothing: the scorer outlives its requests."""

    def _decisions(self, errand: Errand) -> tuple[Decision, ...]:
        decisions: list[Decision] = []
        tally = errand.tally
        if tally.sent:
            sent = errand.cargo.owners(tally.sent)
            decisions.append(Decision("send", Code.SENT, sent, tally.reason))
        if tally.retries:
            decisions.append(Decision("send", Code.RETRIED, tally.retries, self.name))
        return tuple(decisions)


def _left_out(n: int, kept: int, slate: int | None) -> list[Decision]:
    decisions: list[Decision] = []
    if slate is not None and kept == slate and kept < n:
        detail = f"{slate} at once: scores compare within one call only"
        decisions.append(Decision("send", Code.DEPTH, n - kept, detail))
    elif kept < n:
        decisions.append(Decision("send", Code.BLANK, n - kept))
    return decisions
