"""Windows are judged: seldom wrongly, and soon enough."""

import numpy as np
import pytest

from rerank_plugins.quality.drift.snapshot import from_json, snapshot, to_json
from rerank_plugins.quality.drift.verdict import DriftThresholds, judge, rejudge
from tests.quality.drift.requests import drawn


def windows(source, count, size=100, **drift):
    """Draw windows of requests."""
    for _ in range(count):
        yield drawn(source, size, **drift)


@pytest.fixture(scope="module")
def pool():
    """Give many requests of one law; snapshots and windows are disjoint draws from them."""
    return drawn(np.random.default_rng(0), 6000)


@pytest.mark.parametrize(("reference", "size"), [(100, 50), (300, 100), (1000, 200)])
def test_without_drift_at_most_one_window_in_a_hundred_raises_an_alarm(pool, reference, size):
    """Over fresh snapshots and windows of one law, verdicts other than ok stay under 1 %."""
    source = np.random.default_rng(reference)
    alarms = 0
    rounds = 400
    for _ in range(rounds):
        chosen = [pool[i] for i in source.choice(len(pool), reference + size, replace=False)]
        before = snapshot(chosen[:reference], subject="s", model="m")
        alarms += judge(before, chosen[reference:]).verdict != "ok"
    assert alarms / rounds <= 0.01


@pytest.mark.parametrize(
    "drift",
    [{"shift": -1.5}, {"length": 0.7}, {"agreement": 0.0}],
    ids=["lower scores", "longer passages", "shuffled scores"],
)
def test_drift_is_found_within_three_windows(drift):
    """Each kind of drift moves the verdict of at least one window in three, for every seed."""
    for seed in range(5):
        source = np.random.default_rng(seed)
        before = snapshot(drawn(source, 300), subject="s", model="m")
        assert any(judge(before, one).verdict != "ok" for one in windows(source, 3, **drift))


def test_scores_that_lost_their_meaning_are_harmful_and_other_text_is_not():
    """Agreement that collapses is damage; longer passages alone ask to be watched."""
    source = np.random.default_rng(5)
    before = snapshot(drawn(source, 300, agreement=0.8), subject="s", model="m")
    shuffled = judge(before, drawn(source, 100, agreement=0.0))
    longer = judge(before, drawn(source, 100, agreement=0.8, length=0.8))
    assert (shuffled.verdict, "agreement" in shuffled.reasons) == ("harmful", True)
    assert (longer.verdict, longer.reasons) == ("watch", ("passage_length",))


def test_agreement_that_is_lost_shows_in_a_small_window():
    """Forty requests against a snapshot of 76 tell mostly, where most of the agreement is gone.

    By the distributions alone nine of these twenty would be found.
    """
    found = []
    for seed in range(20):
        source = np.random.default_rng(seed)
        before = snapshot(drawn(source, 76, agreement=0.4, candidates=10), subject="s", model="m")
        found.append(judge(before, drawn(source, 40, agreement=0.1, candidates=10)).verdict)
    assert found.count("harmful") >= 14


@pytest.mark.parametrize(
    ("how", "verdict"),
    [
        (DriftThresholds(agreement=0.9), "harmful"),
        (DriftThresholds(agreement=0.0), "watch"),
        (DriftThresholds(least=1.1), "ok"),
    ],
)
def test_a_report_judged_again_is_what_other_thresholds_would_have_said(how, verdict):
    """Verdict, reasons and what moved are those of judging the window by them at once."""
    source = np.random.default_rng(8)
    before = snapshot(drawn(source, 300, agreement=0.8), subject="s", model="m")
    window = drawn(source, 100, agreement=0.3)
    report = judge(before, window, how)
    assert rejudge(judge(before, window), how) == report
    assert report.verdict == verdict


def test_a_small_window_is_never_judged():
    """Under twenty requests there is no finding, whatever they look like."""
    source = np.random.default_rng(1)
    before = snapshot(drawn(source, 300), subject="s", model="m")
    report = judge(before, drawn(source, 19, shift=-50.0))
    assert (report.verdict, report.findings) == ("ok", ())


def test_a_feature_nobody_could_observe_is_passed_over():
    """Without null scores nothing is said about them."""
    source = np.random.default_rng(2)
    before = snapshot(drawn(source, 100, candidates=2), subject="s", model="m")
    report = judge(before, drawn(source, 50, candidates=2))
    assert "agreement" not in {one.feature for one in report.findings}


def test_scores_that_follow_length_are_harmful():
    """Where nearly all of the order is length, other signs may hold and it is still damage."""
    source = np.random.default_rng(9)
    before = snapshot(drawn(source, 300), subject="s", model="m")
    window = drawn(source, 100, shift=18.0, by_length=4.0)
    assert (judge(before, window).verdict, "length_bias" in judge(before, window).reasons) == (
        "harmful",
        True,
    )
    assert (
        judge(before, window, DriftThresholds(agreement=0.0, separation=0.0, length=1.1)).verdict
        == "watch"
    )


def test_scores_that_followed_length_when_all_was_well_may_go_on():
    """It is no sign of damage where the snapshot shows as much of it."""
    source = np.random.default_rng(10)
    before = snapshot(drawn(source, 300, by_length=1.0), subject="s", model="m")
    report = judge(before, drawn(source, 100, shift=18.0, by_length=4.0))
    assert "length_bias" in report.moved
    assert "length_bias" not in report.reasons or report.verdict != "harmful"


def test_text_put_before_every_passage_is_named():
    """Passages of a request that begin alike are what a template leaves; it is watched."""
    source = np.random.default_rng(6)
    before = snapshot(drawn(source, 300), subject="s", model="m")
    report = judge(before, drawn(source, 100, common=12))
    assert (report.verdict, report.reasons) == ("watch", ("boilerplate",))


def test_a_snapshot_of_fewer_features_says_nothing_about_the_others():
    """One from before a feature was watched is read, and judges by those that it holds."""
    source = np.random.default_rng(7)
    data = to_json(snapshot(drawn(source, 300), subject="s", model="m"))
    del data["values"]["boilerplate"]
    before = from_json(data)
    report = judge(before, drawn(source, 100, common=12))
    assert (report.verdict, before.sample("boilerplate").size) == ("ok", 0)


def test_a_snapshot_survives_json():
    """Reading what was written gives the same snapshot."""
    before = snapshot(drawn(np.random.default_rng(3), 50), subject="s", model="m", canaries=[3])
    assert from_json(to_json(before)) == before


@pytest.mark.parametrize(
    "change",
    [
        {"format": 2},
        {"values": []},
        {"values": {}},
        {"canaries": ["a"]},
        {"requests": "many"},
        {"canaries": [np.inf]},
    ],
)
def test_what_is_no_snapshot_is_refused(change):
    """Another format, or values that are no numbers, raise ValueError."""
    data = to_json(snapshot([], subject="s", model="m"))
    with pytest.raises(ValueError, match=r"format|sample|count"):
        from_json({**data, **change})
