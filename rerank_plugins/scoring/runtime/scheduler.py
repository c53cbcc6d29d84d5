"""One queue of micro-batches for all concurrent requests, and a worker thread per core.

A request is a coroutine. It awaits two things only: `run_jobs` (micro-batches to compute) and
`wait` (a future from elsewhere, such as a remote call). The scheduler resumes it on a worker when
what it waits for is done, so that no request holds a thread, threads and asyncio share one core,
and a sync caller merely waits for the same future that an async caller awaits.

Order of service: earliest virtual deadline first. The virtual deadline is the request's own one or,
without one, its arrival plus its work stretched by a constant: equal requests are served first come
first served (which halves the median latency against sharing), a small one overtakes a big one that
still has much to do, and nothing starves, because keys never move.
"""

import contextlib
import heapq
import itertools
import threading
import time
from collections.abc import Callable, Coroutine
from concurrent.futures import CancelledError, Future, InvalidStateError
from contextvars import Context, copy_context
from dataclasses import dataclass, field
from typing import TypeAlias, TypeVar

from ...errors import ClosedError, Overloaded
from .fair_share import Claim, Share, share
from .jobs import Job, Jobs, Wait
from .process import Home

# How much longer than its bare work a request without a deadline may take before it goes first.
_STRETCH = 2.0
# Seconds per padded token until the first batch has been timed.
_FIRST_GUESS_S = 1e-4
_SMOOTHING = 0.1
# A change in the number of concurrent callers is noticed within about five requests.
_SMOOTHING_LOAD = 0.2
R = TypeVar("R")


@dataclass(slots=True, eq=False)
class _Task:
    """One request under way. Only the worker that holds its step, or the lock, touches it."""

    coroutine: Coroutine[object, object, object]
    future: Future[object]
    context: Context
    claim: Claim
    results: list[object] = field(default_factory=list)
    left: int = 0
    failure: BaseException | None = None


_Item: TypeAlias = tuple[float, int, _Task, Callable[[], None]]


class Scheduler:
    """Runs request coroutines and their micro-batches on `workers` threads.

    `max_requests` bounds the requests under way; one more is refused with `Overloaded`.
    """

    def __init__(
        self,
        workers: int,
        *,
        max_requests: int = 1024,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.home = Home("the reranker")
        self.workers = workers
        self.max_requests = max_requests
        self._clock = clock
        self._queue: list[_Item] = []
        self._changed = threading.Condition()
        self._sequence = itertools.count()
        self._active: set[_Task] = set()
        self._closed = False
        self._token_s = _FIRST_GUESS_S
        self._usual = 1.0
        self._threads = [
            threading.Thread(target=self._work, name=f"rerank-worker-{i}", daemon=True)
            for i in range(workers)
        ]
        for thread in self._threads:
            thread.start()

    @property
    def queued(self) -> int:
        """Micro-batches and steps that wait for a worker."""
        return len(self._queue)

    @property
    def active(self) -> int:
        """Requests under way."""
        return len(self._active)

    def claim(self, deadline_s: float | None) -> Claim:
        """Make the claim of a request that arrives now; without a deadline it is not in a hurry."""
        now = self._clock()
        return Claim(now if deadline_s is None else deadline_s, now, deadline_s)

    def share(self, own: Claim) -> Share:
        """Say what a request with a deadline may count on, those under way considered.

        How many usually are under way when one arrives is learnt: a request that comes first does
        not take what the next ones, about to come, will need.
        """
        with self._changed:
            claims = [task.claim for task in self._active]
            others = [one for one in claims if one is not own and not one.spare]
            return share(
                own, others, workers=self.workers, now_s=self._clock(), expected=self._usual
            )

    def submit(
        self,
        coroutine: Coroutine[object, object, R],
        *,
        deadline_s: float | None = None,
        claim: Claim | None = None,
        spare: bool = False,
    ) -> Future[R]:
        """Start a request; its contextvars are the caller's. Cancelling the future drops its jobs.

        `claim` replaces `deadline_s` where the request tells what it means to compute.

        A `spare` request computes next to nothing itself, as one that a remote scorer answers:
        there is room for `max_requests` of them besides. Raises `Overloaded` when too many requests
        are under way and `ClosedError` after `close`.
        """
        future: Future[object] = Future()
        task = _Task(coroutine, future, copy_context(), claim or self.claim(deadline_s))
        with self._changed:
            refusal = self._refusal(self.max_requests * (2 if spare else 1))
            if refusal is None:
                self._active.add(task)
                known = sum(not one.claim.spare for one in self._active)
                self._usual += _SMOOTHING_LOAD * (known - self._usual)
                self._push(task, lambda: self._step(task, None))
        if refusal is not None:
            coroutine.close()
            raise refusal
        return future  # type: ignore[return-value]

    def close(self) -> None:
        """Fail what has not finished with `ClosedError` and end the workers; nothing in a fork."""
        if self.home.left:
            return
        with self._changed:
            self._closed = True
            self._queue.clear()
            pending = list(self._active)
            self._changed.notify_all()
        for task in pending:
            self._finish(task, error=ClosedError("the reranker was closed while a request ran"))
        for thread in self._threads:
            if thread is not threading.current_thread():
                thread.join(timeout=10.0)

    def _refusal(self, max_requests: int) -> Exception | None:
        if self._closed:
            return ClosedError("the reranker is closed; create a new one")
        if len(self._active) >= max_requests:
            return Overloaded(
                f"{len(self._active)} requests are under way, at most {max_requests} are "
                "allowed; retry later, lower the load, or raise max_requests"
            )
        return None

    def _push(self, task: _Task, action: Callable[[], None]) -> None:
        heapq.heappush(self._queue, (task.claim.key_s, next(self._sequence), task, action))
        self._changed.notify()

    def _work(self) -> None:
        while True:
            with self._changed:
                while not self._queue and not self._closed:
                    self._changed.wait()
                if self._closed:
                    return
                _, _, task, action = heapq.heappop(self._queue)
            if task.future.cancelled():
                self._finish(task, error=CancelledError())
            else:
                action()
            # The loop's names outlive the request otherwise, and with them its passages.
            del task, action

    def _step(self, task: _Task, value: object, error: BaseException | None = None) -> None:
        """Run the coroutine up to the next thing it waits for."""
        try:
            if error is not None:
                effect = task.context.run(task.coroutine.throw, error)
            else:
                effect = task.context.run(task.coroutine.send, value)
        except StopIteration as stop:
            self._finish(task, result=stop.value)
        except BaseException as failure:  # noqa: BLE001 - whatever it is belongs to the caller
            self._finish(task, error=failure)
        else:
            self._await(task, effect)

    def _await(self, task: _Task, effect: object) -> None:
        if isinstance(effect, Wait):
            waited = effect.future
            waited.add_done_callback(lambda done: self._resume(task, done))
            if effect.owned:
                task.future.add_done_callback(lambda done: done.cancelled() and waited.cancel())
        elif isinstance(effect, Jobs):
            self._enqueue(task, effect)
        else:
            found = type(effect).__name__
            message = f"a scorer awaited {found}; it may only await run_jobs(...) and wait(future)"
            self._step(task, None, TypeError(message))

    def _resume(self, task: _Task, done: Future[object]) -> None:
        error: BaseException | None
        try:
            error = done.exception()
        except CancelledError as cancelled:
            error = cancelled
        value = None if error is not None else done.result()
        with self._changed:
            if not self._closed:
                self._push(task, lambda: self._step(task, value, error))

    def _enqueue(self, task: _Task, effect: Jobs[object]) -> None:
        if not effect.jobs:
            self._step(task, [])
            return
        task.results = [None] * len(effect.jobs)
        task.left = len(effect.jobs)
        with self._changed:
            if task.claim.deadline_s is None and not task.claim.spare:
                work_s = self._token_s * sum(job.tokens for job in effect.jobs)
                task.claim.key_s = task.claim.arrival_s + _STRETCH * work_s / self.workers
                task.claim.plan(work_s)
            for place, job in enumerate(effect.jobs):
                self._push(task, self._bind(task, effect, place, job))

    def _bind(
        self, task: _Task, effect: Jobs[object], place: int, job: Job[object]
    ) -> Callable[[], None]:
        return lambda: self._run(task, effect, place, job)

    def _run(self, task: _Task, effect: Jobs[object], place: int, job: Job[object]) -> None:
        started = self._clock()
        computed = False
        try:
            # After a failure, and for refused jobs, only the count goes down.
            if task.failure is None and (effect.admit is None or effect.admit(job)):
                task.results[place] = task.context.copy().run(job.run)
                computed = True
        except BaseException as failure:  # noqa: BLE001 - raised where the jobs are awaited
            task.failure = failure
        with self._changed:
            took_s = self._clock() - started
            task.claim.spent_s += took_s
            if computed and job.tokens > 0:
                self._token_s += _SMOOTHING * (took_s / job.tokens - self._token_s)
            task.left -= 1
            last = task.left == 0
        if last:
            failure_seen, task.failure = task.failure, None
            results, task.results = task.results, []
            self._step(task, results, failure_seen)

    def _finish(
        self, task: _Task, *, result: object = None, error: BaseException | None = None
    ) -> None:
        with self._changed:
            if task not in self._active:
                return
            self._active.discard(task)
        # It may still run on another worker, and then ends at its next step.
        with contextlib.suppress(RuntimeError, ValueError):
            task.coroutine.close()
        try:
            if isinstance(error, CancelledError):
                task.future.cancel()
                task.future.set_running_or_notify_cancel()
            elif error is not None:
                task.future.set_exception(error)
            else:
                task.future.set_result(result)
        except InvalidStateError:
            # The caller cancelled at the last moment; others may still wait for the future.
            task.future.set_running_or_notify_cancel()
