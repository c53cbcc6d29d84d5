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
from rerank_plugins.rules.keep import AsymmetricKeep, MarginKeep, ProbabilityKeep, ShareKeep
from rerank_plugins.rules.selection import (
    Certain,
    GapCut,
    GapDepth,
    MassCut,
    MassDepth,
    NullCut,
    ProbabilityCut,
    Sequential,
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
KEEPS = st.sampled_from(
    [None, 3, ShareKeep(0.5), MarginKeep(0.2, 2), ProbabilityKeep(0.4), AsymmetricKeep(0.6, 0.7)]
)


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
            "depth": st.sampled_from([None, 4, MassDepth(0.7), GapDepth()]),
            "cut": st.sampled_from(
                [None, 3, ProbabilityCut(0.5), MassCut(0.5), GapCut(), NullCut((0.0, 0.1))]
            ),
            "stop": st.sampled_from([None, Sequential(0.3, tier=4, min=4, top_k=2)]),
            "skip": st.sampled_from([None, Certain(0.4)]),
        }
    ),
)
def test_no_rule_drops_a_candidate_from_the_order(passages, rule, rules):
    """Whatever is scored, kept, settled or cut, the order is a permutation; hits are its head."""
    stages = (Stage(OverlapScorer(), rule, calibration=PLATT), Stage(LexicalScorer()))
    setup = Setup(stages, workers=1, **rules)
    with Reranker(setup) as reranker:
        result = reranker.rerank("red fox", passages)
    assert sorted(result.order) == list(range(len(passages)))
    assert [hit.index for hit in result.hits] == list(result.order[: len(result.hits)])


def test_settled_candidates_lead_the_order():
    """What a stage accepts as surely relevant stays above what the next stage scored."""
    stages = (
        Stage(LexicalScorer(), AsymmetricKeep(0.5, 0.99), calibration=PLATT),
        Stage(LexicalScorer()),
    )
    passages = ["blue hen", "red hen", "a red fox", "grey owl"]
    with Reranker(Setup(stages, workers=1)) as reranker:
        result = reranker.rerank("red fox", passages)
    assert result.order[0] == 2
    assert result[0].depth == 1
    assert {hit.depth for hit in result.hits[1:]} == {2}
    assert any(one.code is Code.EXITED for one in result.decisions)


def test_a_certain_first_stage_skips_scoring():
    """With `skip`, a prior that stands out leaves the first-stage order, and says so."""
    candidates = [Candidate("blue", 50.0), Candidate("red fox", 1.0), Candidate("red", 0.9)]
    settings_ = {"stages": [{"scorer": "lexical"}], "selection": {"skip": {"mass": 0.7}}}
    with load(settings_) as reranker:
        result = reranker.rerank("red fox", candidates)
    assert result.order == (0, 1, 2)
    assert [one.code for one in result.decisions] == [Code.STAGE_SKIPPED]
    assert not result.degraded


def test_sequential_stopping_leaves_the_tail_unscored():
    """Once nothing better is to be expected, the rest keeps first-stage order behind."""
    passages = [
        Candidate("red fox " + " ".join(f"tree{i}x{j}" for j in range(i)), 40.0 - i)
        for i in range(40)
    ]
    stop = Sequential(0.05, tier=10, min=20, top_k=3)
    with Reranker(Setup((Stage(OverlapScorer()),), stop=stop, workers=1)) as reranker:
        result = reranker.rerank("red fox", passages)
    scored = sum(hit.depth > 0 for hit in result)
    assert 20 <= scored < 40
    assert result.order[scored:] == tuple(range(scored, 40))
    assert any(one.code is Code.DEPTH for one in result.decisions)


@pytest.mark.parametrize("kind", ["lexical", "slate"])
def test_scores_that_compare_within_one_call_are_never_taken_in_parts(kind):
    """`stop` scores in parts, so it is refused for scores that depend on the other candidates."""
    scorer = OverlapScorer()
    scorer.score_kind = kind
    with pytest.raises(ConfigError, match="compare within one call only"):
        Setup((Stage(scorer),), stop=Sequential(0.05))


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
            "stop": {"epsilon": 0.05},
        },
    }
    with load(table) as reranker:
        assert reranker.setup.stages[0].keep == MarginKeep(0.5, 3)
        assert reranker.setup.depth == MassDepth(0.9, 1.0, 10, 100)
        assert reranker.setup.cut == GapCut(1, 8)
        assert reranker.setup.stop == Sequential(0.05)


@pytest.mark.parametrize(
    ("table", "says"),
    [
        ({"selection": {"depth": {"mas": 0.5}}}, "did you mean 'mass'"),
        ({"selection": {"cut": {"max": 5}}}, "with one of"),
        ({"stages": [{"scorer": "lexical", "keep": {"count": 3, "share": 0.5}}]}, "exclude"),
        ({"stages": [{"scorer": "lexical", "keep": {"probability": 0.5}}]}, "not calibrated"),
        ({"stages": [{"scorer": "lexical", "keep": {"accept": 0.5}}]}, "give both"),
        ({"selection": {"depth": {"min": 9, "max": 3}}}, "min <= max"),
    ],
)
def test_impossible_rules_are_refused(table, says):
    """A rule that cannot be meant names what was found and what to do."""
    with pytest.raises(ConfigError, match=says):
        load(table)
