"""What a score means is read off the scorer, never assumed."""

import numpy as np
import pytest

from rerank_plugins import Reranker, Stage
from rerank_plugins.errors import ModelError
from rerank_plugins.rules.calibration import Calibration
from rerank_plugins.scoring import Scored

NUMBERS = {"a": 0.98, "b": 0.5, "c": 0.02}


class Scripted:
    """A scorer whose numbers are known, of any kind."""

    def __init__(self, kind="logit", error=None):
        self.name, self.score_kind, self._error = f"scripted {kind}", kind, error

    async def score(self, query, passages, *, state=None, deadline_s=None):
        """Return the known numbers, or fail."""
        if self._error is not None:
            raise self._error
        n = len(passages)
        scores = np.float32([NUMBERS[text] for text in passages])
        return Scored(scores, np.ones(n, bool), np.zeros(n, int))

    def warm_up(self):
        """Do nothing."""

    def close(self):
        """Do nothing."""


def relevance(stages, **options):
    """Return what is shown for each passage, by its text."""
    with Reranker(stages=stages, **options) as reranker:
        result = reranker.rerank("q", list(NUMBERS))
    return {"abc"[hit.index]: hit.relevance for hit in result}, result


@pytest.mark.parametrize("kind", ["probability", "cosine", "vendor", "slate"])
def test_a_number_that_is_no_logit_is_shown_as_it_is(kind):
    """The logistic function is for logits: a probability of .98 stays .98."""
    found, result = relevance([Stage(Scripted(kind))])
    assert found == pytest.approx(NUMBERS)
    assert {hit.score_kind for hit in result} == {kind}


def test_a_bm25_score_is_shown_between_0_and_1():
    """No match is 0, and the order stays."""
    found, _ = relevance([Stage(Scripted("lexical"))])
    assert found == pytest.approx({name: x / (1 + x) for name, x in NUMBERS.items()})


def test_a_logit_is_shown_as_its_logistic_function():
    """Between 0 and 1, in the order of the logits."""
    found, _ = relevance([Stage(Scripted())])
    assert found == pytest.approx({name: 1 / (1 + np.exp(-x)) for name, x in NUMBERS.items()})


def test_a_calibration_is_shown_where_there_is_one():
    """Whatever the kind of the scorer's numbers."""
    stage = Stage(Scripted("vendor"), calibration=Calibration(2.0, -1.0))
    found, result = relevance([stage])
    assert found == {"abc"[hit.index]: hit.probability for hit in result}


def test_the_number_of_a_fallback_is_shown_though_its_score_is_not():
    """Thresholds read one number everywhere; behind a fallback they must not drop everything."""
    stages = [
        Stage(Scripted("logit", ModelError("down"))),
        Stage(Scripted("probability"), when="fallback"),
    ]
    found, result = relevance(stages)
    assert found == pytest.approx(NUMBERS)
    assert all(hit.score is None for hit in result)


def test_what_is_not_scored_shows_nothing():
    """Neither a number nor a kind."""
    found, result = relevance([Stage(Scripted(), enter=1)])
    assert [name for name, number in found.items() if number is None] == ["b", "c"]
    assert [hit.score_kind for hit in result] == ["logit", None, None]
