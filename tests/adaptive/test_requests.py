"""Adaptive rules end to end, over real scorers."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rerank_plugins import Candidate, Reranker, Stage, load
from rerank_plugins.core.setup import Setup
from rerank_plugins.errors import ConfigError
from rerank_plugins.records import Code
from rerank_plugins.rules.calibration import Calibration
from rerank_plugins.rules.keep import MarginKeep, ProbabilityKeep, ShareKeep
from rerank_plugins.rules.selection import (
    Certain,
    GapCut,
    MassDepth,
    ProbabilityCut,
)
from rerank_plugins.scoring import Scored
from rerank_plugins.scoring.lexical import LexicalScorer

PLATT = Calibration(a=1.0, b=-1.0)
WORDS = st.lists(st.sampled_from(["red", "fox", "hen", "tree", "", "blue"]), max_size=4).map(
    " ".join
)
PASSAGES = st.lists(
    st.builds(Candidate, st.one_of(st.none(), WORDS), st.one_of(st.none(), st.floats(-5, 5))),
    max_size=25,
)
KEEPS = st.sampled_from([None, 3, ShareKeep(0.5), MarginKeep(0.2, 2), ProbabilityKeep(0.4)])


class OverlapScorer:
    """A scorer of one's own: the share of a passage's words that the query has."""

    name = "overlap"
    score_kind = "probability"

    async def score(self, query, passages, *, state=None, deadline_s=None):
        """Score each passage by itself."""
        wanted = set(query.split())
        bags = [p.split() or ["nothing"] for p in passages]
        shares = [sum(w in wanted for w in bag) / len(bag) for bag in bags]
        n = len(passages)
        return Scored(np.float32(shares), np.ones(n, np.bool_), np.zeros(n, np.int64))

    def warm_up(self):
        """Do nothing."""

    def close(self):
        """Do nothing."""


@settings(max_examples=80, deadline=None)
@given(
    PASSAGES,
    KEEPS,
    st.fixed_dictionaries(
        {
            "depth": st.sampled_from([None, 4, MassDepth(0.7)]),
            "cut": st.sampled_from([None, 3, ProbabilityCut(0.5), GapCut()]),
            "skip": st.sampled_from([None, Certain(0.4)]),
        }
    ),
)
def test_no_rule_drops_a_candidate_from_the_order(passages, rule, rules):
    """Whatever is scored, kept or cut, the order is a permutation; hits are its head."""
    stages = (Stage(OverlapScorer(), rule, calibration=PLATT), Stage(LexicalScorer()))
    setup = Setup(stages, workers=1, **rules)
    with Reranker(setup) as reranker:
        result = reranker.rerank("red fox", passages)
    assert sorted(result.order) == list(range(len(passages)))
    assert [hit.index for hit in result.hits] == list(result.order[: len(result.hits)])


def test_a_certain_first_stage_skips_scoring():
    """With `skip`, a prior that stands out leaves the first-stage order, and says so."""
    candidates = [Candidate("blue", 50.0), Candidate("red fox", 1.0), Candidate("red", 0.9)]
    settings_ = {"stages": [{"scorer": "lexical"}], "selection": {"skip": {"mass": 0.7}}}
    with load(settings_) as reranker:
        result = reranker.rerank("red fox", candidates)
    assert result.order == (0, 1, 2)
    assert [one.code for one in result.decisions] == [Code.STAGE_SKIPPED]
    assert not result.degraded


def test_settings_take_numbers_and_tables():
    """`depth`, `keep` and `cut` are numbers or rules, in files and dicts alike."""
    table = {
        "stages": [
            {"scorer": "embedded", "keep": {"margin": 0.5, "top_k": 3}},
            {"scorer": "lexical"},
        ],
        "selection": {
            "depth": {"min": 10, "max": 100},
            "cut": {"gap": True, "max": 8},
        },
    }
    with load(table) as reranker:
        assert reranker.setup.stages[0].keep == MarginKeep(0.5, 3)
        assert reranker.setup.depth == MassDepth(0.9, 1.0, 10, 100)
        assert reranker.setup.cut == GapCut(1, 8)


@pytest.mark.parametrize(
    ("table", "says"),
    [
        ({"selection": {"depth": {"mas": 0.5}}}, "did you mean 'mass'"),
        ({"selection": {"cut": {"max": 5}}}, "with one of"),
        ({"stages": [{"scorer": "lexical", "keep": {"count": 3, "share": 0.5}}]}, "exclude"),
        ({"stages": [{"scorer": "lexical", "keep": {"probability": 0.5}}]}, "not calibrated"),
        ({"selection": {"depth": {"min": 9, "max": 3}}}, "min <= max"),
    ],
)
def test_impossible_rules_are_refused(table, says):
    """A rule that cannot be meant names what was found and what to do."""
    with pytest.raises(ConfigError, match=says):
        load(table)
