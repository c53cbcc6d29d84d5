"""rerank_plugins.telemetry.timeline: timings on a time line."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from rerank_plugins import Reranker
from rerank_plugins.records import Timing
from rerank_plugins.telemetry import layout

SECONDS = st.floats(0.0, 10.0)


def test_stages_follow_one_another_and_fusing_ends_with_the_request():
    """Steps of the second stage start where the first ends; "fuse" ends at the total."""
    steps = layout(
        [
            Timing("queue", 1.0),
            Timing("select", 1.0),
            Timing("tokenise", 1.0, "a"),
            Timing("score", 2.0, "a"),
            Timing("stage", 4.0, "a"),
            Timing("score", 1.0, "b"),
            Timing("stage", 1.5, "b"),
            Timing("fuse", 0.5),
            Timing("total", 9.0),
        ]
    )
    assert [(one.name, one.stage, one.place, one.start_s, one.end_s) for one in steps] == [
        ("queue", None, None, 0.0, 1.0),
        ("select", None, None, 1.0, 2.0),
        ("stage", "a", 0, 2.0, 6.0),
        ("tokenise", "a", 0, 2.0, 3.0),
        ("score", "a", 0, 3.0, 5.0),
        ("stage", "b", 1, 6.0, 7.5),
        ("score", "b", 1, 6.0, 7.0),
        ("fuse", None, None, 8.5, 9.0),
    ]


@given(st.lists(st.tuples(SECONDS, SECONDS, SECONDS), max_size=4))
def test_no_step_starts_before_the_one_that_came_before_it(stages):
    """Steps outside stages never overlap, and a stage's steps never start before it."""
    timings = [Timing("queue", 0.5)]
    for tokenise, score, rest in stages:
        timings += [Timing("tokenise", tokenise, "m"), Timing("score", score, "m")]
        timings += [Timing("stage", tokenise + score + rest, "m")]
    steps = layout([*timings, Timing("fuse", 0.1)])
    wholes = [one for one in steps if one.name == "stage" or one.stage is None]
    assert all(b.start_s >= a.end_s - 1e-9 for a, b in pairwise(wholes))
    assert len([one for one in steps if one.name == "score"]) == len(stages)


def test_a_real_results_steps_lie_within_its_total():
    """Every step of an answer of the embedded model ends by the request's end."""
    with Reranker() as reranker:
        result = reranker.rerank("a red fox", ["a blue hen", "a red fox"])
    total_s = next(one.seconds for one in result.timings if one.step == "total")
    steps = layout(result.timings)
    assert {one.name for one in steps} == {
        *("queue", "select", "stage", "tokenise", "score", "fold", "fuse")
    }
    assert all(0.0 <= one.start_s <= one.end_s <= total_s + 1e-6 for one in steps)
