"""Divisions of the cores are compared in turns, and recommended only where that is beyond doubt."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rerank_plugins.config.schema import StageSettings
from rerank_plugins.evaluation import threads
from rerank_plugins.evaluation.threads import Comparison, Split, Timed
from rerank_plugins.scoring.runtime import process
from tests.cli.test_cli import run

FORMULA = Timed(Split(8, 1), 0.1, 1.0)


def found(small_s, large_s, free=1.0):
    """Name what is better than a formula of 0.1 and 1 s."""
    others = (Timed(Split(4, 2), small_s, large_s), Timed(Split(1, 8), 0.3, 1.5))
    return Comparison(FORMULA, others, free).better


@given(st.integers(min_value=1, max_value=256))
def test_every_split_uses_the_cores_there_are_and_no_more(count):
    """The formula comes first, none comes twice."""
    made = threads.candidates(count)
    assert made[0] == Split(count, 1)
    assert len(set(made)) == len(made)
    assert all(count - 1 <= one.workers * one.inside <= count for one in made)


@pytest.mark.parametrize(
    ("small_s", "large_s", "better"),
    [
        (0.08, 1.0, Split(4, 2)),
        (0.1, 0.8, Split(4, 2)),
        (0.08, 1.04, Split(4, 2)),
        (0.08, 1.1, None),
        (0.095, 0.95, None),
        (0.1, 1.0, None),
    ],
)
def test_a_split_is_better_where_one_size_gains_clearly_and_the_other_loses_nothing(
    small_s, large_s, better
):
    """Differences of a few per cent are noise, and a gain is not bought with a loss."""
    assert found(small_s, large_s) == better


def test_on_busy_cores_nothing_is_recommended():
    """There more threads look faster because they take more from other programs."""
    assert found(0.05, 0.5, free=0.6) is None


def test_every_split_of_a_real_model_is_timed(tiny_model):
    """Rerankers of the same model, one for each split, answer the same requests."""
    made = threads.compare(StageSettings(scorer=str(tiny_model), graph_cache=False), 2)
    assert [one.split for one in (made.formula, *made.others)] == [Split(2, 1), Split(1, 2)]
    assert all(one.small_s > 0 and one.large_s > 0 for one in (made.formula, *made.others))
    assert 0 < made.free <= 1


def test_doctor_times_the_splits_if_asked(tiny_model, tmp_path, capsys):
    """`doctor --threads` shows what each gave, and never fails for it."""
    path = tmp_path / "rerank.json"
    path.write_text(json.dumps({"stages": [{"scorer": str(tiny_model), "graph_cache": False}]}))
    run("doctor", "--config", path, "--json", "--threads")
    checks = {one["name"]: one for one in json.loads(capsys.readouterr().out)}
    line = checks["stage 1: threads"]
    assert line["verdict"] in {"ok", "warn"}
    assert all(str(one) in line["found"] for one in threads.candidates(process.count()))
