"""One queue of micro-batches for all concurrent requests, and a worker thread per core.

A request is a coroutine. It awaits two things only: `run_jobs` (micro-batches to compute) and
`wait` (a future from elsewhere, such as a remote call). The scheduler resumes it on a worker when
the result is there. So no request holds a thread, and sync and async callers wait for the same
future of the same engine.

Order of service: earliest virtual deadline first. That is the request's own deadline; without one,
its arrival plus a multiple of its work. Equal requests are then served first come first served
(which halves the median latency against time slices), a small request overtakes a big one that
still has much to do, and no request starves, because virtual deadlines never move.

No executor of the standard library has a priority queue with admission at the start of each job.
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
from functools import partial
from typing import TypeAlias, TypeVar

from ...errors import ClosedError, Overloaded
from .fair_share import Claim, Share, share
from .jobs import Job, PendingFuture, PendingJobs
from .process import OwnerProcess

# A request without a deadline goes first once it has taken this many times its bare work.
_STRETCH = 2.0
# Seconds per padded token until the first batch has been timed.
_FIRST_GUESS_S = 1e-4
_SMOOTHING = 0.1
# Follows a change in the number of concurrent callers within about five requests.
_SMOOTHING_LOAD = 0.2
R = TypeVar("R")


@dataclass(slots=True, eq=False)
class _Task:
    """One request under way. Only the worker that runs its step, or holds the lock, touches it.

    results, left: of the jobs that it awaits, the results and how many are not done.
    failure: the first exception of those jobs.
    """

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
        self.owner = OwnerProcess("the reranker")
        self.workers = workers
        self.max_requests = max_requests
        self._clock = clock
        self._queue: list[_Item] = []
        self._changed = threading.Condition()
        self._sequence = itertools.count()
        self._active: set[_Task] = set()
        self._closed = False
        self._token_s = _FIRST_GUESS_S
        self._usual_requests = 1.0
        self._threads = [
            threading.Thread(target=self._work, name=f"rerank-worker-{i}", daemon=True)
            for i in range(workers)
        ]
        for thread in self._threads:
            thread.start()

    def claim(self, deadline_s: float | None) -> Claim:
        """Make the claim of a request that arrives now; without a deadline it can wait."""
        now = self._clock()
        return Claim(now if deadline_s is None else deadline_s, now, deadline_s)

    def share(self, own: Claim) -> Share:
        """Return what a request with a deadline may count on beside those under way.

        The scheduler learns how many requests are usually under way: the first of several does not
        take the time that the next ones, about to arrive, will need.
        """
        with self._changed:
            claims = [task.claim for task in self._active]
            return share(
                own,
                [claim for claim in claims if claim is not own and not claim.background],
                workers=self.workers,
                now_s=self._clock(),
                usual_requests=self._usual_requests,
            )

    def submit(
        self,
        coroutine: Coroutine[object, object, R],
        *,
        deadline_s: float | None = None,
        claim: Claim | None = None,
        remote: bool = False,
    ) -> Future[R]:
        """Start a request; its contextvars are the caller's. Cancelling the future drops its jobs.

        `claim` replaces `deadline_s` where the caller plans with it. A `remote` request computes
        next to nothing here: there is room for `max_requests` of them in addition. Raises
        `Overloaded` when too many requests are under way and `ClosedError` after `close`.
        """
        future: Future[object] = Future()
        task = _Task(coroutine, future, copy_context(), claim or self.claim(deadline_s))
        with self._changed:
            refusal = self._refusal(self.max_requests * (2 if remote else 1))
            if refusal is None:
                self._active.add(task)
                under_way = sum(not other.claim.background for other in self._active)
                self._usual_requests += _SMOOTHING_LOAD * (under_way - self._usual_requests)
                self._push(task, partial(self._step, task, None))
        if refusal is not None:
            coroutine.close()
            raise refusal
        return future  # type: ignore[return-value]

    def close(self) -> None:
        """Fail unfinished requests with `ClosedError` and end the workers; do nothing in a fork."""
        if self.owner.forked:
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
            # These names would keep the request's passages in memory until the next one arrives.
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
        if isinstance(effect, PendingFuture):
            effect.future.add_done_callback(partial(self._resume, task))
            if effect.owned:
                task.future.add_done_callback(partial(_cancel_with, effect.future))
        elif isinstance(effect, PendingJobs):
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
                self._push(task, partial(self._step, task, value, error))

    def _enqueue(self, task: _Task, effect: PendingJobs[object]) -> None:
        if not effect.jobs:
            self._step(task, [])
            return
        task.results = [None] * len(effect.jobs)
        task.left = len(effect.jobs)
        with self._changed:
            if task.claim.deadline_s is None and not task.claim.background:
                work_s = self._token_s * sum(job.tokens for job in effect.jobs)
                task.claim.key_s = task.claim.arrival_s + _STRETCH * work_s / self.workers
                task.claim.plan(work_s)
            for place, job in enumerate(effect.jobs):
                self._push(task, partial(self._run, task, effect, place, job))

    def _run(self, task: _Task, effect: PendingJobs[object], place: int, job: Job[object]) -> None:
        started = self._clock()
        computed = False
        try:
            # After a failure jobs are only counted down, and so are refused ones.
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


def _cancel_with(owned: Future[object], done: Future[object]) -> None:
    if done.cancelled():
        owned.cancel()
