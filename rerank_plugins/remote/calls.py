"""Calls that end in time: retried where it helps, hedged, limited, and behind a breaker."""

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from urllib.parse import urlsplit

import httpx
import numpy as np
from numpy.typing import NDArray

from ..errors import RemoteError, RerankError, Withheld
from .auth import sign
from .call_context import Errand
from .chunking import deal, split
from .client import Client, Reply
from .dialects.json_body import Answer, Ask
from .options import RemoteOptions, Target
from .resilience import Breaker, Limiter, Outcome, backoff_s
from .response import Failed, TooMany, check_model, join, refusal
from .tracing import Attempt, remote_call

# Without a deadline, a server that wants to be left alone for longer is given up.
_PATIENCE_S = 30.0
_MOST_PAGES = 16
_POLL_S = 0.2
_OK, _ACCEPTED = 200, 202


class Calls:
    """Makes the calls of one remote scorer; breaker, limits and learned caps are shared by all.

    Everything here runs on the client's thread. `share` gives random numbers in [0, 1].
    """

    def __init__(
        self,
        target: Target,
        options: RemoteOptions,
        client: Client,
        *,
        clock: Callable[[], float],
        share: Callable[[], float],
    ) -> None:
        self.target = target
        self.options = options
        self.breaker = Breaker(target.destination.origin, options.breaker, clock=clock)
        self._client = client
        self._clock = clock
        self._share = share
        self._limiter = Limiter(
            concurrency=options.concurrency, per_minute=options.per_minute, clock=clock
        )
        self._caps = target.caps

    async def score(self, errand: Errand) -> NDArray[np.float32]:
        """Get all that an errand sends scored, in as many calls as it takes, or fail."""
        texts = errand.cargo.texts
        scores = np.zeros(len(texts), dtype=np.float32)
        parts = [list(range(len(texts)))]
        if self.target.slate is None:
            parts = split(errand.query, texts, self._caps)
        try:
            async with asyncio.TaskGroup() as group:
                for places in parts:
                    group.create_task(self._part(errand, places, scores))
        except BaseExceptionGroup as failures:
            raise _first(failures) from None
        return scores

    async def _part(
        self, errand: Errand, places: Sequence[int], scores: NDArray[np.float32]
    ) -> None:
        """Score one call's texts; where it holds too many, deal it anew.

        A destination that says how many it takes is believed from then on. Scores that compare
        within one call only are never dealt to several.
        """
        try:
            scores[list(places)] = await self._retried(errand, places)
        except TooMany as error:
            if len(places) == 1 or self.target.slate is not None:
                raise
            most = -(-len(places) // 2)
            if error.most is not None and 0 < error.most < len(places):
                most = error.most
                self._caps = replace(self._caps, documents=most)
            for part in deal(places, most):
                await self._part(errand, part, scores)

    async def _retried(self, errand: Errand, places: Sequence[int]) -> NDArray[np.float32]:
        attempt = 0
        while True:
            try:
                return await self._hedged(errand, places)
            except Failed as error:
                if not error.retryable or attempt >= self.options.retries:
                    raise
                wait_s = error.wait_s
                if wait_s is None:
                    wait_s = backoff_s(attempt, self._share())
                if wait_s >= self._left_s(errand, _PATIENCE_S):
                    message = f"{error}; trying again in {wait_s:.2f} s would be too late"
                    raise RemoteError(message) from error
            attempt += 1
            errand.tally.retries += 1
            await asyncio.sleep(wait_s)

    async def _hedged(self, errand: Errand, places: Sequence[int]) -> NDArray[np.float32]:
        """Ask, and ask again if no answer came for a while; the first good answer counts."""
        tasks = [asyncio.create_task(self._attempt(errand, places))]
        try:
            if self.options.hedge_s is not None:
                done, _ = await asyncio.wait(tasks, timeout=self.options.hedge_s)
                if not done:
                    errand.tally.retries += 1
                    tasks.append(asyncio.create_task(self._attempt(errand, places)))
            while True:
                done, waiting = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
                good = next((one for one in done if one.exception() is None), None)
                if good is not None or not waiting:
                    return (good or tasks[0]).result()
                await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _attempt(self, errand: Errand, places: Sequence[int]) -> NDArray[np.float32]:
        """Ask once, within the time left and the limits. Raises `Failed` or `RemoteError`."""
        left_s = self._left_s(errand, self.options.timeout_s)
        until_s = self._clock() + left_s
        try:
            async with asyncio.timeout(left_s), self._limiter.turn(until_s):
                return await self._guarded(errand, places, until_s)
        except TimeoutError as error:
            message = f"no answer within {left_s:.3f} s"
            raise Failed(message, outcome=Outcome.BAD, retryable=True) from error

    async def _guarded(
        self, errand: Errand, places: Sequence[int], until_s: float
    ) -> NDArray[np.float32]:
        """Ask through the breaker, and tell it how that went."""
        probe = self.breaker.enter()
        outcome = Outcome.NOTHING
        started_s = self._clock()
        try:
            scores = await self._ask(errand, places)
            outcome = Outcome.GOOD
        except asyncio.CancelledError:
            now_s = self._clock()
            if now_s >= until_s and now_s - started_s >= errand.fair_s:
                outcome = Outcome.BAD
            raise
        except (Failed, Withheld) as error:
            outcome = error.outcome if isinstance(error, Failed) else Outcome.NOTHING
            raise
        except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
            outcome = Outcome.BAD
            message = f"the connection failed ({type(error).__name__})"
            raise Failed(message, outcome=outcome, retryable=True) from error
        except RemoteError:
            outcome = Outcome.BAD
            raise
        finally:
            self.breaker.leave(outcome, probe=probe)
        return scores

    async def _ask(self, errand: Errand, places: Sequence[int]) -> NDArray[np.float32]:
        texts = [errand.cargo.texts[place] for place in places]
        left_s = self._left_s(errand, self.options.timeout_s)
        ask = Ask(
            self.target.model,
            errand.query,
            texts,
            self.target.extra,
            left_s=None if errand.deadline_s is None else left_s,
            tensors=errand.cargo.tensors(places),
        )
        rows: list[tuple[object, object]] = []
        for _ in range(_MOST_PAGES):
            reply = await self._reply(errand, ask, places)
            answer = self.target.dialect.read(reply.body, reply.headers)
            if self.target.provider.echoes_model:
                check_model(self.target.model, answer.model, self.options.accept_models)
            errand.tally.add(answer)
            rows += answer.rows
            if answer.next_page is None:
                break
            ask = replace(ask, page=answer.next_page)
        return join(Answer(rows), len(texts), self.target.provider.score_range)

    async def _reply(self, errand: Errand, ask: Ask, places: Sequence[int]) -> Reply:
        body, own_headers = self.target.dialect.ask(ask)
        headers = {"content-type": "application/json", **self.target.headers, **own_headers}
        headers = sign(self.target.provider.auth, self.target.key, self.target.url, body, headers)
        with remote_call(self._span(len(places))) as call:
            reply = await self._client.send(
                self.target.url,
                {**headers, **call.headers()},
                body,
                check=lambda url: self._check(errand, ask, places, url),
            )
            call.answered(reply.status, reply.headers)
        if reply.status == _ACCEPTED and self.target.poll_url is not None:
            reply = await self._poll(reply)
        if reply.status == _OK:
            return reply
        key = None if self.target.key is None else self.target.key.get()
        raise refusal(reply, [ask.query, *ask.texts], key=key, now_s=time.time())

    def _span(self, candidates: int) -> Attempt:
        there = urlsplit(self.target.destination.origin)
        return Attempt(
            self.options.provider,
            self.target.model,
            host=there.hostname or "",
            port=there.port,
            candidates=candidates,
            destination=self.target.destination,
        )

    def _check(self, errand: Errand, ask: Ask, places: Sequence[int], url: str) -> None:
        """Let a final URL pass, or not; either way it is on record first. Raises `Withheld`."""
        destination = self.target.locate(url, self.options.client)
        whole = [errand.cargo.whole[place] for place in places]
        verdict = errand.permit.verdict(destination, whole)
        errand.permit.audit(verdict, destination, ask.query, ask.texts)
        if not verdict.allowed:
            raise Withheld(verdict.reason)
        errand.tally.calls += 1
        errand.tally.sent.update(places)
        errand.tally.reason = verdict.reason

    async def _poll(self, reply: Reply) -> Reply:
        """Ask after a call that was accepted and not yet answered; no text is sent with it."""
        number = reply.headers.get("nvcf-reqid", "")
        if not number.replace("-", "").isalnum():
            return reply
        url = f"{self.target.poll_url}{number}"
        headers = sign("bearer", self.target.key, url, b"", {})
        while reply.status == _ACCEPTED:
            await asyncio.sleep(_POLL_S)
            reply = await self._client.send(url, headers, b"", check=lambda _: None, method="GET")
        return reply

    def _left_s(self, errand: Errand, most_s: float) -> float:
        if errand.deadline_s is None:
            return most_s
        return max(0.0, min(most_s, errand.deadline_s - self._clock()))


def _first(failures: BaseExceptionGroup[BaseException]) -> BaseException:
    """Give the first failure that says something, out of all that ended together."""
    flat: list[BaseException] = []
    for one in failures.exceptions:
        flat += [_first(one)] if isinstance(one, BaseExceptionGroup) else [one]
    return next((one for one in flat if isinstance(one, RerankError)), flat[0])
