"""The calls of a request: retried where it helps, hedged, limited, and behind a breaker."""

import asyncio
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import httpx
import numpy as np
from numpy.typing import NDArray

from ..errors import RemoteError, RerankError, Withheld
from ..rules.deadline import FAIR_CALL_S, FAIR_CALL_SHARE
from ..rules.residency import Permit
from .auth import secrets_in, sign
from .chunking import split
from .client import Client, HttpResponse
from .dialects.json_body import ApiRequest, ApiResponse, Row
from .options import Endpoint, RemoteOptions
from .payload import Payload
from .resilience import Breaker, Limiter, Outcome, backoff_s
from .response import Failed, Sent, TooMany, check_model, failure, scores_of
from .tracing import remote_call

# Without a deadline, a server that asks for a longer wait is given up.
_LONGEST_WAIT_S = 30.0
_MOST_PAGES, _LONGEST_PAGE_CHARS = 16, 8192
_REQUEST_ID = re.compile(r"[A-Za-z0-9-]{1,100}")
_POLL_S = 0.2
_OK, _ACCEPTED = 200, 202


@dataclass(slots=True)
class Totals:
    """What the calls of a request add up to, also where they fail.

    sent: the items of the payload that left this process
    seconds: the destination's own timings; the longest of all calls counts
    reason: why the policy let them go
    """

    calls: int = 0
    retries: int = 0
    sent: set[int] = field(default_factory=set)
    tokens: int = 0
    billed_units: float = 0.0
    seconds: dict[str, float] = field(default_factory=dict)
    reason: str = ""

    def add(self, response: ApiResponse) -> None:
        """Count a response."""
        self.tokens += response.tokens
        self.billed_units += response.billed_units
        for step, value in response.seconds.items():
            self.seconds[step] = max(value, self.seconds.get(step, 0.0))


@dataclass(frozen=True, slots=True)
class CallContext:
    """What the calls of one request share."""

    query: str
    payload: Payload
    permit: Permit
    started_s: float
    deadline_s: float | None
    totals: Totals = field(default_factory=Totals)

    @property
    def fair_s(self) -> float:
        """The seconds a call must get before its silence is the destination's fault."""
        if self.deadline_s is None:
            return FAIR_CALL_S
        return min(FAIR_CALL_S, FAIR_CALL_SHARE * (self.deadline_s - self.started_s))


class Calls:
    """Makes the calls of one remote scorer; all requests share its breaker, limits and caps.

    Everything here runs on the client's thread. `jitter` returns random numbers in [0, 1].
    """

    def __init__(
        self,
        endpoint: Endpoint,
        options: RemoteOptions,
        client: Client,
        *,
        clock: Callable[[], float],
        jitter: Callable[[], float],
    ) -> None:
        self.endpoint = endpoint
        self.options = options
        self.breaker = Breaker(endpoint.destination.origin, options.breaker, clock=clock)
        self._client = client
        self._clock = clock
        self._jitter = jitter
        self._limiter = Limiter(
            concurrency=options.concurrency, per_minute=options.per_minute, clock=clock
        )
        self._caps = endpoint.caps

    async def score(self, context: CallContext) -> NDArray[np.float32]:
        """Return a value for each item of the payload, from as many calls as it takes."""
        texts = context.payload.texts
        values = np.zeros(len(texts), dtype=np.float32)
        batches = [list(range(len(texts)))]
        if self.endpoint.listwise_limit is None:
            batches = split(context.query, texts, self._caps)
        try:
            async with asyncio.TaskGroup() as group:
                for items in batches:
                    group.create_task(self._batch(context, items, values))
        except BaseExceptionGroup as failures:
            raise _first(failures) from None
        return values

    async def _batch(
        self, context: CallContext, items: Sequence[int], values: NDArray[np.float32]
    ) -> None:
        """Score the items of one call, or of several smaller calls if it is refused as too large.

        The batch size that a destination names holds for all later calls. Scores of a listwise
        model compare within one call only, so its calls are never split.
        """
        try:
            values[list(items)] = await self._with_retries(context, items)
        except TooMany as error:
            if len(items) == 1 or self.endpoint.listwise_limit is not None:
                raise
            size = -(-len(items) // 2)
            if error.limit is not None and 0 < error.limit < len(items):
                size = error.limit
                self._caps = replace(self._caps, documents=size)
            for start in range(0, len(items), size):
                await self._batch(context, items[start : start + size], values)

    async def _with_retries(
        self, context: CallContext, items: Sequence[int]
    ) -> NDArray[np.float32]:
        attempt = 0
        while True:
            try:
                return await self._with_hedge(context, items)
            except Failed as error:
                if not error.retryable or attempt >= self.options.retries:
                    raise
                wait_s = error.wait_s
                if wait_s is None:
                    wait_s = backoff_s(attempt, self._jitter())
                if wait_s >= self._left_s(context, _LONGEST_WAIT_S):
                    message = f"{error}; trying again in {wait_s:.2f} s would be too late"
                    raise RemoteError(message) from error
            attempt += 1
            context.totals.retries += 1
            await asyncio.sleep(wait_s)

    async def _with_hedge(self, context: CallContext, items: Sequence[int]) -> NDArray[np.float32]:
        """Make a second, equal call if the first takes long; the first good answer counts."""
        tasks = [asyncio.create_task(self._with_limits(context, items))]
        try:
            if self.options.hedge_s is not None:
                done, _ = await asyncio.wait(tasks, timeout=self.options.hedge_s)
                if not done:
                    context.totals.retries += 1
                    tasks.append(asyncio.create_task(self._with_limits(context, items)))
            while True:
                done, waiting = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
                good = next((task for task in done if task.exception() is None), None)
                if good is not None or not waiting:
                    return (good or tasks[0]).result()
                await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _with_limits(self, context: CallContext, items: Sequence[int]) -> NDArray[np.float32]:
        """Make one attempt within the time left. Raises `Failed` or `RemoteError`."""
        left_s = self._left_s(context, self.options.timeout_s)
        until_s = self._clock() + left_s
        try:
            async with asyncio.timeout(left_s), self._limiter.turn(until_s):
                return await self._with_breaker(context, items, until_s)
        except TimeoutError as error:
            message = f"no answer within {left_s:.3f} s"
            raise Failed(message, outcome=Outcome.BAD, retryable=True) from error

    async def _with_breaker(
        self, context: CallContext, items: Sequence[int], until_s: float
    ) -> NDArray[np.float32]:
        """Make one attempt if the breaker admits it, and record its outcome there."""
        probe = self.breaker.enter()
        outcome = Outcome.NOTHING
        started_s = self._clock()
        try:
            values = await self._attempt(context, items)
            outcome = Outcome.GOOD
        except asyncio.CancelledError:
            now_s = self._clock()
            if now_s >= until_s and now_s - started_s >= context.fair_s:
                outcome = Outcome.BAD
            raise
        except Failed as error:
            outcome = error.outcome
            raise
        except Withheld:
            raise
        except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
            outcome = Outcome.BAD
            message = f"the connection failed ({type(error).__name__})"
            # Its own message may quote what came back.
            raise Failed(message, outcome=outcome, retryable=True) from None
        except RemoteError:
            outcome = Outcome.BAD
            raise
        finally:
            self.breaker.leave(outcome, probe=probe)
        return values

    async def _attempt(self, context: CallContext, items: Sequence[int]) -> NDArray[np.float32]:
        """Send the items, read all pages of the answer, and return the checked scores."""
        endpoint = self.endpoint
        left_s = self._left_s(context, self.options.timeout_s)
        request = ApiRequest(
            endpoint.model,
            context.query,
            [context.payload.texts[item] for item in items],
            endpoint.extra,
            left_s=None if context.deadline_s is None else left_s,
            tensors=context.payload.tensors(items),
        )
        rows: list[Row] = []
        for _ in range(_MOST_PAGES):
            reply, sent = await self._post(context, request, items)
            response = endpoint.dialect.decode(reply.body, reply.headers)
            if endpoint.provider.echoes_model:
                check_model(endpoint.model, response.model, self.options.accept_models, sent)
            context.totals.add(response)
            rows += response.rows
            if response.next_page is None:
                break
            if len(response.next_page) > _LONGEST_PAGE_CHARS:
                message = f"the token of the next page is longer than {_LONGEST_PAGE_CHARS} letters"
                raise RemoteError(message)
            request = replace(request, page=response.next_page)
        return scores_of(rows, len(items), endpoint.provider.score_range)

    async def _post(
        self, context: CallContext, request: ApiRequest, items: Sequence[int]
    ) -> tuple[HttpResponse, Sent]:
        """Return a good answer, and what it must not repeat. Raises `Failed` for any other."""
        endpoint = self.endpoint
        body, own_headers = endpoint.dialect.encode(request)
        headers = {"content-type": "application/json", **endpoint.headers, **own_headers}
        headers = sign(endpoint.provider.auth, endpoint.key, endpoint.url, body, headers)
        provider, there = self.options.provider, endpoint.destination
        with remote_call(provider, endpoint.model, there, candidates=len(items)) as call:
            response = await self._client.send(
                endpoint.url,
                {**headers, **call.headers()},
                body,
                check=partial(self._check, context, request, items),
            )
            call.answered(response.status, response.headers)
        if response.status == _ACCEPTED and endpoint.poll_url is not None:
            response = await self._poll(response)
        sent = Sent([request.query, *request.texts], secrets_in(headers))
        if response.status == _OK:
            return response, sent
        raise failure(response, sent, url=endpoint.url, now_s=time.time())

    def _check(
        self, context: CallContext, request: ApiRequest, items: Sequence[int], url: str
    ) -> None:
        """Raise `Withheld` if the texts may not go to a final URL; the audit records it first."""
        destination = self.endpoint.locate(url, self.options.client)
        full_texts = [context.payload.full_texts[item] for item in items]
        verdict = context.permit.verdict(destination, full_texts)
        context.permit.audit(verdict, destination, request.query, request.texts)
        if not verdict.allowed:
            raise Withheld(verdict.reason)
        context.totals.calls += 1
        context.totals.sent.update(items)
        context.totals.reason = verdict.reason

    async def _poll(self, response: HttpResponse) -> HttpResponse:
        """Wait for the response to a call that was accepted; no text is sent."""
        number = response.headers.get("nvcf-reqid", "")
        if not _REQUEST_ID.fullmatch(number):
            return response
        url = f"{self.endpoint.poll_url}{number}"
        headers = sign("bearer", self.endpoint.key, url, b"", {})
        while response.status == _ACCEPTED:
            await asyncio.sleep(_POLL_S)
            response = await self._client.send(
                url, headers, b"", check=_sends_no_text, method="GET"
            )
        return response

    def _left_s(self, context: CallContext, most_s: float) -> float:
        if context.deadline_s is None:
            return most_s
        return max(0.0, min(most_s, context.deadline_s - self._clock()))


def _sends_no_text(url: str) -> None:
    """Let any URL pass: there is no text to protect."""


def _first(failures: BaseExceptionGroup[BaseException]) -> BaseException:
    """Return the first of our own errors among all that ended together, else the first of all."""
    flat: list[BaseException] = []
    for error in failures.exceptions:
        flat += [_first(error)] if isinstance(error, BaseExceptionGroup) else [error]
    return next((error for error in flat if isinstance(error, RerankError)), flat[0])
