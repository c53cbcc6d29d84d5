"""Who may compute how much: the workers' time, divided by deadlines."""

import math
import threading

from hypothesis import given
from hypothesis import strategies as st

from rerank_plugins.scoring.runtime.fair_share import Claim, share
from rerank_plugins.scoring.runtime.jobs import Job, run_jobs
from rerank_plugins.scoring.runtime.scheduler import Scheduler

SECONDS = st.floats(0.01, 1.0)


def claim(deadline_s, planned_s=None, *, arrival_s=0.0):
    """Make a claim of a request in a hurry."""
    return Claim(deadline_s, arrival_s, deadline_s, planned_s)


def test_alone_a_request_has_every_worker_to_its_deadline():
    """Two workers and half a second are one second of work."""
    assert share(claim(0.5), [], workers=2, now_s=0.0).worker_s == 1.0


def test_equal_requests_get_equal_shares():
    """Of four that arrive together each gets a quarter; once planned, the rest divide the rest."""
    waiting = [claim(0.4) for _ in range(3)]
    first = share(claim(0.4), waiting, workers=2, now_s=0.0)
    assert first.worker_s == 0.2
    served = claim(0.4, first.worker_s)
    second = share(claim(0.4), [served, *waiting[:2]], workers=2, now_s=0.0)
    assert abs(second.worker_s - 0.2) < 1e-9
    assert second.wait_s == 0.1


def test_who_goes_first_is_waited_for():
    """Planned work with an earlier deadline delays; what it has done no longer does."""
    ahead = claim(0.3, 0.2)
    assert share(claim(0.5), [ahead], workers=2, now_s=0.0).wait_s == 0.1
    ahead.spent_s = 0.2
    assert share(claim(0.5), [ahead], workers=2, now_s=0.0).wait_s == 0.0


def test_requests_that_usually_come_are_left_their_time():
    """Where four are usual, the first of them does not take it all."""
    assert share(claim(0.4), [], workers=2, now_s=0.0, usual_requests=4.0).worker_s == 0.2


def test_work_without_a_deadline_behind_costs_nothing():
    """A request that is not in a hurry and not first in line is no rival."""
    patient = Claim(9.0, 0.0, None, 5.0)
    assert share(claim(0.5), [patient], workers=1, now_s=0.0) == share(
        claim(0.5), [], workers=1, now_s=0.0
    )


def test_background_work_is_done_last_and_is_nobodys_rival():
    """It runs when nothing else waits, however late that came."""
    scheduler = Scheduler(1)
    gate, ran = threading.Event(), []
    try:
        held = scheduler.submit(_after(gate))
        last = scheduler.submit(_noting(ran, "background"), claim=Claim(math.inf, 0.0))
        urgent = scheduler.submit(_noting(ran, "late"), deadline_s=1e12)
        assert scheduler.share(scheduler.claim(1e12)).wait_s == 0.0
        gate.set()
        for future in (held, last, urgent):
            future.result(timeout=60)
        assert ran == ["late", "background"]
    finally:
        scheduler.close()


async def _noting(ran, name):
    """Note when it was computed."""
    await run_jobs([Job(lambda: ran.append(name), tokens=1)])


@given(st.lists(SECONDS, min_size=1, max_size=6), st.integers(1, 4))
def test_what_is_promised_can_be_kept(deadlines, workers):
    """Served by deadline, everybody's share ends in time."""
    claims = [claim(end) for end in sorted(deadlines)]
    for own in claims:
        others = [one for one in claims if one is not own]
        own.plan(share(own, others, workers=workers, now_s=0.0).worker_s)
    promised = 0.0
    for one in claims:
        promised += one.left_s
        assert promised <= workers * one.key_s + 1e-9


def test_a_scheduler_learns_how_many_are_usual():
    """After requests that overlapped, one that is alone for the moment plans for company."""
    scheduler = Scheduler(1, clock=lambda: 0.0)
    try:
        assert scheduler.share(scheduler.claim(1.0)).worker_s == 1.0
        for _ in range(4):
            gate = threading.Event()
            futures = [scheduler.submit(_after(gate), deadline_s=1.0) for _ in range(4)]
            gate.set()
            for future in futures:
                future.result(timeout=60)
        assert scheduler.share(scheduler.claim(1.0)).worker_s <= 0.5
    finally:
        scheduler.close()


async def _after(gate):
    """Hold the only worker until the gate opens."""
    await run_jobs([Job(gate.wait, tokens=1)])
