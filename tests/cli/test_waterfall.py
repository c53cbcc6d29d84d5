"""rerank_plugins.cli.waterfall: a request on a time line in the terminal."""

import io

from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from rerank_plugins import Reranker, Stage
from rerank_plugins.cli.waterfall import bar, waterfall
from rerank_plugins.errors import ModelError
from rerank_plugins.scoring.lexical import LexicalScorer
from rerank_plugins.telemetry import Step


class Broken(LexicalScorer):
    """A scorer that cannot serve."""

    name = "broken"

    async def score(self, query, passages, *, state=None, deadline_s=None):
        """Fail."""
        raise ModelError("no weights")


def drawn(result):
    """Return the waterfall as a person sees it."""
    out = io.StringIO()
    Console(width=140, file=out).print(waterfall(result))
    return out.getvalue()


def test_every_step_is_a_row_and_says_what_it_did():
    """Steps, stages with their counts, failures and decisions are on the picture."""
    stages = [Stage(Broken()), Stage(LexicalScorer(), when="fallback")]
    with Reranker(stages=stages) as reranker:
        shown = drawn(reranker.rerank("red fox", ["a red fox", "a red fox", "hen"], top_k=1))
    assert "failed on 2 candidates: ModelError" in shown
    assert "2 of 2 candidates scored" in shown
    assert "duplicate 1" in shown
    assert "cut 2" in shown
    assert [
        name for name in ("queue", "select", "broken", "lexical", "fuse") if name not in shown
    ] == []


def test_an_empty_request_draws_without_stages():
    """No candidates: nothing was scored, and the picture still stands."""
    with Reranker("lexical") as reranker:
        assert "select" in drawn(reranker.rerank("red fox", []))


@given(st.floats(0, 100), st.floats(0, 100), st.floats(0, 100))
def test_a_bar_is_as_wide_as_its_column_and_never_empty(start, seconds, rest):
    """Whatever the times, a bar has its width, and at least one mark."""
    shown = bar(Step("score", start, seconds), start + seconds + rest, width=20)
    assert len(shown) == 20
    assert "█" in shown
