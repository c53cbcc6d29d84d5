"""A remote reranker as a scorer: what is sent, under which permit, and what comes back."""

import random
import time
from collections.abc import Callable, Sequence
from dataclasses import replace

import httpx
import numpy as np

from ..errors import RemoteError, Withheld
from ..records import Code, Decision, Timing, Usage
from ..rules.deadline import REMOTE_RETURN_S
from ..rules.residency import Destination, Permit
from ..rules.texts import is_blank
from ..scoring import BreakerState, Scored, ScoreKind, State
from ..scoring.runtime.jobs import wait
from .auth import check_signer
from .calls import CallContext, Calls
from .client import Client
from .options import RemoteOptions, resolve
from .payload import Payload, Reader, TextPayload


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
        self.endpoint = resolve(options)
        check_signer(self.endpoint.provider.auth)
        self.name = self.endpoint.name
        self.score_kind: ScoreKind = self.endpoint.score_kind
        self.destination: Destination = self.endpoint.destination
        self.reader = None if options.reading is None else Reader(options.reading)
        # HTTP/2 never indexes an authorization header; other headers with keys it would.
        http2 = self.endpoint.provider.auth == "bearer"
        self.client = Client(options.client, transport=transport, http2=http2)
        self.calls = Calls(self.endpoint, options, self.client, clock=clock, jitter=random.random)
        self.clock = clock

    @property
    def breaker_state(self) -> BreakerState:
        """Return whether calls go out, are probed, or are held back for now."""
        return self.calls.breaker.state

    def payload(self, query: str, texts: Sequence[str]) -> Payload:
        """Return what is sent for `texts`. Raises `InvalidRequest` for a query beyond the model."""
        if self.reader is not None:
            return self.reader.read(query, texts)
        return TextPayload.cut(texts, self.endpoint.caps.document_chars)

    def under(self, permit: Permit) -> "PermittedScorer":
        """Return this scorer for one request."""
        return PermittedScorer(self, permit)

    async def score(
        self,
        query: str,  # noqa: ARG002 - refused unread
        passages: Sequence[str],  # noqa: ARG002
        *,
        state: State | None = None,  # noqa: ARG002
        deadline_s: float | None = None,  # noqa: ARG002
    ) -> Scored:
        """Raise `Withheld`: without a permit nothing may be sent."""
        message = f"{self.name} was asked without a permit; use under(permit).score(...)"
        raise Withheld(message)

    def warm_up(self) -> None:
        """Load the HTTP client; nothing is sent, because the destination is not ours to warm."""
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
        """Score all passages that are not blank. Raises `RemoteError` or `Withheld`."""
        scorer, endpoint = self._scorer, self._scorer.endpoint
        started_s = scorer.clock()
        chosen = [i for i, text in enumerate(passages) if not is_blank(text)]
        chosen = chosen[: endpoint.listwise_limit]
        payload = scorer.payload(query, [passages[i] for i in chosen])
        context = CallContext(
            endpoint.query_prefix + query,
            payload,
            self._permit,
            started_s,
            None if deadline_s is None else deadline_s - REMOTE_RETURN_S,
        )
        values = np.zeros(0, dtype=np.float32)
        if payload.texts:
            try:
                call = scorer.client.submit(scorer.calls.score(context))
                values = await wait(call, owned=True)
            except RemoteError as error:
                error.decisions = (*error.decisions, *self._sent(context))
                raise
        scored = payload.scored(values)
        left_out = _left_out(len(passages), len(chosen), endpoint.listwise_limit)
        return replace(
            scored,
            timings=self._timings(context),
            decisions=(*left_out, *scored.decisions, *self._sent(context)),
            usage=Usage(
                pairs=len(payload.texts),
                tokens=context.totals.tokens or payload.tokens,
                truncated_tokens=int(scored.truncated_tokens.sum()),
                remote_calls=context.totals.calls,
                billed_units=context.totals.billed_units,
            ),
        ).scatter(chosen, len(passages))

    def warm_up(self) -> None:
        """Do nothing: the scorer itself is warmed up."""

    def close(self) -> None:
        """Do nothing: the scorer outlives its requests."""

    def _timings(self, context: CallContext) -> tuple[Timing, ...]:
        whole = Timing("remote_call", self._scorer.clock() - context.started_s)
        return whole, *(Timing(step, value) for step, value in context.totals.seconds.items())

    def _sent(self, context: CallContext) -> list[Decision]:
        """Return the decisions on what was sent, also where the calls failed."""
        decisions: list[Decision] = []
        totals = context.totals
        if totals.sent:
            texts = context.payload.count_texts(totals.sent)
            decisions.append(Decision("send", Code.SENT, texts, totals.reason))
        if totals.retries:
            decisions.append(Decision("send", Code.RETRIED, totals.retries, self.name))
        return decisions


def _left_out(n: int, kept: int, limit: int | None) -> list[Decision]:
    if kept == n:
        return []
    if kept == limit:
        detail = f"{limit} at once: scores compare within one call only"
        return [Decision("send", Code.DEPTH, n - kept, detail)]
    return [Decision("send", Code.BLANK, n - kept)]
