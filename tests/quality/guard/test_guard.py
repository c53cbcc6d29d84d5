"""The guard itself: cheap, silent when it fails, and not to be fooled by a single window."""

import logging
import time
from dataclasses import replace

import numpy as np
import pytest

from rerank_plugins import Candidate
from rerank_plugins.errors import ConfigError
from rerank_plugins.quality.drift.snapshot import snapshot
from rerank_plugins.quality.drift.verdict import DriftReport
from rerank_plugins.quality.guard.feedback_test import FeedbackTest, Moments
from rerank_plugins.quality.guard.guard import Guard, Note
from rerank_plugins.quality.guard.stance import CONFIGURED, GuardOptions, Hysteresis
from rerank_plugins.records import Hit
from rerank_plugins.scoring.lexical import LexicalScorer
from tests.quality.guard.serving import Tied, ask, guarded, question, reference

OK = DriftReport("ok", 100, ())
BAD = DriftReport("harmful", 100, (), ("best",))
NOTE = Note(
    "id",
    "a query",
    tuple(Candidate("x" * 300, 1.0) for _ in range(100)),
    tuple(Hit(i, float(i), depth=1) for i in range(100)),
    CONFIGURED,
)


def test_one_harmful_window_is_not_enough_and_three_clean_ones_are():
    """It acts after `patience` harmful windows in a row, until `relief` others in a row."""
    resolve = Hysteresis(patience=2, relief=3)
    heard = []
    for report in (BAD, OK, BAD, BAD, OK, OK, BAD, OK, OK, OK):
        resolve.add_report(report)
        heard.append(resolve.harm)
    assert heard == [False, False, False, True, True, True, True, True, True, False]


def test_what_canaries_showed_outlasts_clean_windows():
    """A cause of its own stays until it is taken back."""
    resolve = Hysteresis(patience=2, relief=1)
    resolve.set_cause("canaries", on=True)
    resolve.add_report(OK)
    assert (resolve.verdict, resolve.reason) == ("harmful", "canaries")
    resolve.set_cause("canaries", on=False)
    assert resolve.verdict == "ok"


def test_moments_are_those_of_the_numbers():
    """Counting without keeping gives the same mean and variance."""
    numbers = np.random.default_rng(0).normal(size=50)
    moments = Moments()
    for one in numbers:
        moments.add(float(one))
    assert moments.mean == pytest.approx(numbers.mean())
    assert moments.variance == pytest.approx(numbers.var(ddof=1))


def test_equal_feedback_seldom_blames_reranking():
    """Over many trials of two equal arms, all looks together blame it in at most 1.5 %."""
    source = np.random.default_rng(0)
    blamed = 0
    for _ in range(200):
        trial = FeedbackTest(0.01, 50, controlled=True)
        scores = source.random(1000)
        outcomes = {
            trial.add("configured" if place % 2 else "first_stage", float(score))
            for place, score in enumerate(scores)
        }
        blamed += "worse" in outcomes
    assert blamed <= 3


def test_a_note_costs_a_request_next_to_nothing():
    """Stance and note together take at most 0.1 ms of processor time, the median of many."""
    guard = Guard(GuardOptions(), snapshot([], subject="", model=""))
    guard.note(NOTE)
    guard.settle()
    taken = []
    for _ in range(300):
        started = time.thread_time()
        guard.stance()
        guard.note(NOTE)
        taken.append(time.thread_time() - started)
    guard.close()
    assert sorted(taken)[150] <= 1e-4


def test_a_guard_that_breaks_is_silent_after_the_first_time(caplog):
    """What goes wrong while thinking is logged once as a warning; requests go on."""
    reranker, guard = guarded(Tied(), reference(Tied(), 60))
    guard._window = None
    with reranker, caplog.at_level(logging.DEBUG, "rerank_plugins.guard"):
        source = np.random.default_rng(0)
        results = [reranker.rerank("q", question(source)) for _ in range(3)]
        guard.settle()
    assert all(one[0].score is not None for one in results)
    levels = [one.levelno for one in caplog.records]
    assert levels == [logging.WARNING, logging.DEBUG, logging.DEBUG]


def test_more_notes_than_it_can_think_about_are_left_out():
    """A full queue neither blocks nor raises."""
    guard = Guard(GuardOptions())
    for _ in range(10_000):
        guard.note(NOTE)
    guard.settle()
    guard.close()


def test_a_closed_guard_has_no_thread_and_closing_twice_is_fine():
    """Closing ends the thread after what was waiting."""
    guard = Guard(GuardOptions())
    guard.note(NOTE)
    guard.close()
    guard.close()
    assert guard._thread is None


@pytest.mark.parametrize(("share", "every"), [(0.5, 2), (0.25, 4), (0.01, 100)])
def test_the_control_share_is_kept(share, every):
    """One request in so many is answered in first-stage order."""
    guard = Guard(GuardOptions(control_share=share))
    stances = [guard.stance() for _ in range(200)]
    assert sum(one.control for one in stances) == 200 // every
    guard.close()


def test_canaries_that_changed_are_harm_at_once():
    """Fixed pairs that score otherwise mean another model, whatever requests look like."""
    before = snapshot([], subject="", model="", canaries=[1.0, 2.0, 3.0, 4.0])
    guard = Guard(GuardOptions(), before)
    guard.check([1.001, 2.0, 3.0, 4.001])
    guard.settle()
    assert (guard.state.verdict, guard.stance().action) == ("ok", None)
    guard.check([2.0, 3.0, 2.0, 5.0])
    guard.settle()
    assert (guard.state.verdict, guard.stance().action) == ("harmful", "first_stage")
    guard.close()


def asking_again(scores, **options):
    """Open a guarded service whose fixed pairs score what `scores` says at the time."""
    before = replace(reference(Tied()), canaries=tuple(scores))
    reranker, guard = guarded(Tied(), before, probe_every=1, **options)
    guard.attach(None, canaries=lambda: list(scores))
    return reranker, guard


def test_canaries_are_scored_again_after_so_many_windows():
    """What breaks while a service runs is found, and so is that it is well again."""
    scores = [1.0, 2.0, 3.0, 4.0]
    reranker, guard = asking_again(scores, canary_every=2)
    with reranker:
        ask(reranker, guard, 40)
        assert guard.state.canaries is None
        ask(reranker, guard, 40)
        assert guard.state.canaries == 0.0
        scores.reverse()
        ask(reranker, guard, 40)
        assert not guard.state.acting
        ask(reranker, guard, 40)
        assert (guard.state.acting, guard.state.verdict) == (True, "harmful")
        scores.reverse()
        ask(reranker, guard, 40)
        assert not guard.state.acting


def test_canaries_that_cannot_be_scored_change_nothing():
    """Where no worker was idle nothing is known, which is neither harm nor its absence."""
    scores = [1.0, 2.0, 3.0, 4.0]
    reranker, guard = asking_again(scores, canary_every=1)
    with reranker:
        scores.clear()
        ask(reranker, guard, 80)
    assert guard.state.canaries is None
    assert not guard.state.acting


@pytest.mark.parametrize(("every", "count"), [(0, 0), (10, 16)])
def test_a_snapshot_that_is_learnt_holds_canaries(every, count):
    """The first requests and the fixed pairs are taken together, unless nobody asks for these."""
    reranker, guard = guarded(LexicalScorer(), None, learn=50, canary_every=every)
    with reranker:
        ask(reranker, guard, 50)
        assert guard.reference is not None
        assert len(guard.reference.canaries) == count
        ask(reranker, guard, 400)
    assert guard.state.canaries == (pytest.approx(0.0, abs=1e-5) if every else None)


def test_a_log_that_cannot_be_opened_is_an_error_of_the_configuration(tmp_path):
    """The path is checked when the guard is made, not when it first has something to say."""
    with pytest.raises(ConfigError, match="cannot be opened"):
        Guard(GuardOptions(log=tmp_path))
