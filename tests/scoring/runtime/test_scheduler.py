"""The scheduler: fair, bounded, cancellable, and one core for threads and asyncio."""

import asyncio
import gc
import threading
import time
from concurrent.futures import CancelledError, Future
from concurrent.futures import wait as wait_all
from contextvars import ContextVar

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from rerank_plugins import Reranker
from rerank_plugins.errors import ClosedError, Overloaded
from rerank_plugins.records import Code
from rerank_plugins.scoring.runtime.jobs import Job, run_jobs, wait
from rerank_plugins.scoring.runtime.scheduler import Scheduler
from tests import tiny

WHO = ContextVar("WHO", default="nobody")


async def compute(*jobs, tokens=1, admit=None):
    """Run jobs and return their results."""
    return await run_jobs([Job(job, tokens=tokens) for job in jobs], admit=admit)


@pytest.fixture
def scheduler():
    """Return a scheduler of one worker, so that order can be seen."""
    made = Scheduler(1, max_requests=16)
    yield made
    made.close()


class Gate:
    """Holds the worker until opened."""

    def __init__(self, scheduler):
        self.entered = threading.Event()
        self.open = threading.Event()
        self.future = scheduler.submit(compute(self.pass_through))
        assert self.entered.wait(timeout=30)

    def pass_through(self):
        """Wait for the gate to open."""
        self.entered.set()
        assert self.open.wait(timeout=30)


def test_results_come_in_the_order_of_the_jobs():
    """However the workers share them, jobs answer in their own order."""
    with_two = Scheduler(2)
    future = with_two.submit(compute(*(lambda i=i: i * i for i in range(50))))
    assert future.result(timeout=30) == [i * i for i in range(50)]
    with_two.close()


def test_no_jobs_are_done_at_once(scheduler):
    """A request without work is answered."""
    assert scheduler.submit(compute()).result(timeout=30) == []


def test_a_small_request_overtakes_a_big_one(scheduler):
    """A request of one job behind one of two hundred does not wait for all of them."""
    gate = Gate(scheduler)
    done = []
    big = scheduler.submit(compute(*(lambda: time.sleep(0.001) for _ in range(200)), tokens=1000))
    big.add_done_callback(lambda _: done.append("big"))
    small = scheduler.submit(compute(lambda: None, tokens=10))
    small.add_done_callback(lambda _: done.append("small"))
    gate.open.set()
    wait_all([big, small], timeout=60)
    assert done == ["small", "big"]


def test_equal_requests_are_served_first_come_first_served(scheduler):
    """Among equals nobody is shared to death: the first one finishes first."""
    gate = Gate(scheduler)
    done = []
    futures = []
    for name in range(6):
        futures.append(scheduler.submit(compute(*(lambda: None for _ in range(5)), tokens=50)))
        futures[-1].add_done_callback(lambda _, name=name: done.append(name))
    gate.open.set()
    wait_all(futures, timeout=60)
    assert done == sorted(done)


def test_an_earlier_deadline_goes_first(scheduler):
    """Of two requests with deadlines the more urgent one runs first."""
    gate = Gate(scheduler)
    ran = []
    now = time.monotonic()
    late = scheduler.submit(compute(lambda: ran.append("late")), deadline_s=now + 60)
    soon = scheduler.submit(compute(lambda: ran.append("soon")), deadline_s=now + 5)
    gate.open.set()
    wait_all([late, soon], timeout=60)
    assert ran == ["soon", "late"]


def test_cancelling_drops_the_jobs_that_have_not_started(scheduler):
    """A cancelled request leaves the queue; what runs, ends; nobody else notices."""
    gate = Gate(scheduler)
    ran = []
    doomed = scheduler.submit(compute(*(lambda i=i: ran.append(i) for i in range(20))))
    other = scheduler.submit(compute(lambda: "fine"))
    assert doomed.cancel()
    gate.open.set()
    assert other.result(timeout=30) == ["fine"]
    with pytest.raises(CancelledError):
        doomed.result(timeout=30)
    _idle(scheduler)
    assert ran == []


def test_a_cancelled_request_ends_who_waits_for_many(scheduler):
    """`concurrent.futures.wait` over several requests returns when one of them is cancelled."""
    gate = Gate(scheduler)
    doomed = scheduler.submit(compute(lambda: 1))
    other = scheduler.submit(compute(lambda: 2))
    doomed.cancel()
    gate.open.set()
    done, left = wait_all([doomed, other], timeout=30)
    assert (len(done), len(left)) == (2, 0)


def test_cancelling_in_the_middle_stops_the_rest(scheduler):
    """A request cancelled while its third job runs computes no fourth."""
    ran = []
    futures = []

    def work(i):
        ran.append(i)
        if i == 2:
            futures[0].cancel()

    gate = Gate(scheduler)
    futures.append(scheduler.submit(compute(*(lambda i=i: work(i) for i in range(50)))))
    gate.open.set()
    _idle(scheduler)
    assert ran == [0, 1, 2]


def test_a_full_queue_refuses_and_recovers():
    """One request too many is refused at once, and the next is taken when there is room."""
    scheduler = Scheduler(1, max_requests=2)
    gate = Gate(scheduler)
    scheduler.submit(compute(lambda: None))
    with pytest.raises(Overloaded, match="at most 2"):
        scheduler.submit(compute(lambda: None))
    gate.open.set()
    _idle(scheduler)
    assert scheduler.submit(compute(lambda: 1)).result(timeout=30) == [1]
    scheduler.close()


def test_an_exception_reaches_who_awaits(scheduler):
    """The first failure ends the request and leaves the scheduler working."""

    def fail():
        raise ValueError("broken job")

    with pytest.raises(ValueError, match="broken job"):
        scheduler.submit(compute(lambda: 1, fail, lambda: 2)).result(timeout=30)

    async def mends():
        try:
            return await compute(fail)
        except ValueError:
            return await compute(lambda: "mended")

    assert scheduler.submit(mends()).result(timeout=30) == ["mended"]

    async def breaks():
        raise KeyError("own fault")

    with pytest.raises(KeyError):
        scheduler.submit(breaks()).result(timeout=30)
    assert scheduler.submit(compute(lambda: 3)).result(timeout=30) == [3]


def test_a_failing_admission_is_a_failure(scheduler):
    """What admits jobs may fail like a job."""

    def admit(_job):
        raise ValueError("no clock")

    with pytest.raises(ValueError, match="no clock"):
        scheduler.submit(compute(lambda: 1, admit=admit)).result(timeout=30)


def test_refused_jobs_give_none(scheduler):
    """Admission is asked job by job, right before each starts."""
    asked = iter([True, False, True])
    future = scheduler.submit(compute(lambda: 1, lambda: 2, lambda: 3, admit=lambda _: next(asked)))
    assert future.result(timeout=30) == [1, None, 3]


def test_a_foreign_awaitable_is_refused(scheduler):
    """Scorers await jobs and futures; anything else is a TypeError that says so."""

    async def sleeps():
        await asyncio.sleep(0)

    with pytest.raises(TypeError, match="may only await run_jobs"):
        scheduler.submit(sleeps()).result(timeout=30)


def test_waiting_for_a_future_holds_no_worker(scheduler):
    """While one request waits for something outside, the only worker serves another."""
    outside: Future[str] = Future()

    async def waits():
        return await wait(outside)

    waiting = scheduler.submit(waits())
    assert scheduler.submit(compute(lambda: 1)).result(timeout=30) == [1]
    assert not waiting.done()
    outside.set_result("at last")
    assert waiting.result(timeout=30) == "at last"


@pytest.mark.parametrize("failure", [ValueError("outside"), None])
def test_a_future_that_fails_or_is_cancelled_is_an_exception(scheduler, failure):
    """What went wrong outside is raised where it is awaited."""
    outside: Future[str] = Future()

    async def waits():
        try:
            return await wait(outside)
        except (ValueError, CancelledError) as error:
            return type(error).__name__

    waiting = scheduler.submit(waits())
    if failure is None:
        outside.cancel()
    else:
        outside.set_exception(failure)
    assert waiting.result(timeout=30) in {"ValueError", "CancelledError"}


def test_the_callers_context_is_carried(scheduler):
    """Context variables of the caller are seen between jobs and inside them."""

    async def asks():
        before = WHO.get()
        inside = await compute(WHO.get, WHO.get)
        return before, *inside, WHO.get()

    token = WHO.set("somebody")
    try:
        future = scheduler.submit(asks())
    finally:
        WHO.reset(token)
    assert future.result(timeout=30) == ("somebody",) * 4
    assert scheduler.submit(asks()).result(timeout=30) == ("nobody",) * 4


def test_closing_under_load_fails_what_is_left():
    """Requests under way end with ClosedError, later ones are refused, and the workers end."""
    scheduler = Scheduler(2)
    futures = [
        scheduler.submit(compute(*(lambda: time.sleep(0.002) for _ in range(50))))
        for _ in range(20)
    ]
    time.sleep(0.02)
    scheduler.close()
    for future in futures:
        assert isinstance(future.exception(timeout=30), ClosedError | None)
    assert any(future.exception() is not None for future in futures)
    assert not any(thread.is_alive() for thread in scheduler._threads)
    with pytest.raises(ClosedError):
        scheduler.submit(compute(lambda: 1))
    scheduler.close()


def test_a_reranker_that_nobody_closed_ends_its_workers():
    """Dropping the last reference to a reranker ends its threads."""
    reranker = Reranker("lexical", workers=3)
    threads = list(reranker._scheduler._threads)
    reranker.rerank("fox", ["a fox"])
    del reranker
    gc.collect()
    for thread in threads:
        thread.join(timeout=30)
        assert not thread.is_alive()


PLAN = st.lists(
    st.tuples(
        st.integers(0, 6),  # jobs
        st.sampled_from(["run", "fail", "cancel", "refuse"]),
        st.none() | st.floats(-0.01, 0.2),  # deadline, seconds from now
        st.integers(0, 500),  # tokens a job
    ),
    max_size=25,
)


@settings(max_examples=40, deadline=None, phases=[Phase.generate])
@given(plan=PLAN, workers=st.integers(1, 3))
def test_every_request_ends_as_it_should(plan, workers):
    """Whatever is thrown at it, each request gets its own outcome and nothing is left behind."""

    def fail():
        raise ValueError("planned")

    scheduler = Scheduler(workers, max_requests=32)
    futures = []
    for number, (jobs, fate, deadline, tokens) in enumerate(plan):
        work = [fail if fate == "fail" else (lambda i=i, n=number: (n, i)) for i in range(jobs)]
        admit = (lambda _: False) if fate == "refuse" else None
        deadline_s = None if deadline is None else time.monotonic() + deadline
        future = scheduler.submit(compute(*work, tokens=tokens, admit=admit), deadline_s=deadline_s)
        if fate == "cancel":
            future.cancel()
        futures.append(future)
    assert not wait_all(futures, timeout=30).not_done
    _idle(scheduler)
    for number, (future, (jobs, fate, _, _)) in enumerate(zip(futures, plan, strict=True)):
        if future.cancelled():
            assert fate == "cancel"
        elif fate == "fail" and jobs:
            assert isinstance(future.exception(), ValueError)
        elif fate == "refuse":
            assert future.result() == [None] * jobs
        else:
            assert future.result() == [(number, i) for i in range(jobs)]
    scheduler.close()


class TestAsyncio:
    """Many coroutines over one core."""

    def test_many_requests_add_no_threads_and_do_not_block_the_loop(self, tiny_model):
        """Four hundred reranks at once keep the loop turning and the number of threads."""
        passages = tiny.passages(20)

        async def main(reranker):
            ticks = 0
            over = asyncio.Event()

            async def tick():
                nonlocal ticks
                while not over.is_set():
                    ticks += 1
                    await asyncio.sleep(0)

            ticking = asyncio.create_task(tick())
            before = threading.active_count()
            requests = [reranker.arerank("red fox", passages) for _ in range(400)]
            tasks = [asyncio.create_task(request) for request in requests]
            await asyncio.sleep(0)
            during = threading.active_count()
            results = await asyncio.gather(*tasks)
            over.set()
            await ticking
            return results, ticks, during - before

        with Reranker(tiny_model) as reranker:
            expected = reranker.rerank("red fox", passages).order
            results, ticks, more = asyncio.run(main(reranker))
        assert {result.order for result in results} == {expected}
        assert more == 0
        assert ticks > 20

    def test_cancelling_a_task_drops_its_work(self, tiny_model):
        """A cancelled await raises, and the reranker goes on serving."""

        async def main(reranker):
            task = asyncio.create_task(reranker.arerank("red fox", tiny.passages(300)))
            await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            return await reranker.arerank("red fox", ["a hen", "a red fox"])

        with Reranker(tiny_model, workers=1) as reranker:
            assert len(asyncio.run(main(reranker))) == 2
            _idle(reranker._scheduler)

    def test_a_timeout_is_an_ordinary_cancellation(self, tiny_model):
        """asyncio.timeout around a rerank behaves as users expect."""

        async def main(reranker):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0):
                    await reranker.arerank("red fox", tiny.passages(300))

        with Reranker(tiny_model) as reranker:
            asyncio.run(main(reranker))

    def test_errors_are_raised_where_they_are_awaited(self, tiny_model):
        """The caller's mistakes reach the awaiting coroutine."""

        async def main(reranker):
            with pytest.raises(ValueError, match="not blank"):
                await reranker.arerank(" ", ["a"])

        with Reranker(tiny_model) as reranker:
            asyncio.run(main(reranker))
        with pytest.raises(ClosedError):
            asyncio.run(reranker.arerank("red fox", ["a"]))

    def test_a_loop_that_ends_early_hurts_nobody(self, tiny_model):
        """Work whose loop is gone by the time it ends is forgotten without a word."""

        async def main(reranker):
            requests = [reranker.arerank("red fox", tiny.passages(200)) for _ in range(50)]
            tasks = [asyncio.create_task(request) for request in requests]
            await asyncio.sleep(0)
            return len(tasks)

        with Reranker(tiny_model) as reranker:
            assert asyncio.run(main(reranker)) == 50
            assert len(reranker.rerank("red fox", ["a hen"])) == 1


def test_an_overloaded_reranker_passes_through_or_raises(tiny_model):
    """Beyond its bound a reranker gives the first-stage order, degraded; strict, an error."""
    from rerank_plugins import load

    setting = {"stages": [{"scorer": str(tiny_model)}], "service": {"max_requests": 1}}
    with load(setting) as reranker:
        gate = Gate(reranker._scheduler)
        result = reranker.rerank("red fox", ["a hen", "a red fox"])
        assert result.order == (0, 1)
        assert result.degraded
        assert result.decisions[0].code is Code.OVERLOADED
        with pytest.raises(Overloaded):
            reranker.rerank("red fox", ["a hen", "a red fox"], strict=True)
        gate.open.set()
        _idle(reranker._scheduler)
        assert not reranker.rerank("red fox", ["a hen", "a red fox"]).degraded


def _idle(scheduler):
    """Wait until no request is left behind: there is room for as many as ever."""
    outside: Future[None] = Future()

    async def waits():
        await wait(outside)

    end = time.monotonic() + 30
    taken = []
    while len(taken) < scheduler.max_requests:
        try:
            taken.append(scheduler.submit(waits()))
        except Overloaded:
            assert time.monotonic() < end, len(taken)
            time.sleep(0.001)
    outside.set_result(None)
    assert not wait_all(taken, timeout=30).not_done
