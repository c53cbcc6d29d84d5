"""Plans for requests under a budget."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rerank_plugins import Reranker, Stage, load
from rerank_plugins.adaptive.planner import Planner, _caps
from rerank_plugins.core.setup import Setup
from rerank_plugins.errors import ConfigError
from rerank_plugins.records import Code
from rerank_plugins.rules.keep import ShareKeep
from rerank_plugins.rules.plans import PROFILES
from rerank_plugins.scoring import Scored
from rerank_plugins.scoring.runtime.fair_share import Share


class Slow:
    """A scorer of one's own with a known price: longer passages score higher."""

    score_kind = "logit"

    def __init__(self, price_s, name="slow"):
        self.name = name
        self._price_s = price_s

    async def score(self, query, passages, *, state=None, deadline_s=None):
        """Score by length, in no time."""
        n = len(passages)
        return Scored(np.float32([len(p) for p in passages]), np.ones(n, bool), np.zeros(n, int))

    def price_s(self, chars):
        """Ask the same for every passage."""
        return self._price_s

    def warm_up(self):
        """Do nothing."""

    def close(self):
        """Do nothing."""


class Short(Slow):
    """The same, with a price per character; it can read less of each passage."""

    def __init__(self, price_s, most=None):
        super().__init__(price_s, "short")
        self._most = most

    def price_s(self, chars):
        """Ask for what is read."""
        return self._price_s * sum(min(one, self._most or one) for one in chars) / len(chars)

    def shortened(self, max_tokens):
        """Read so many characters, for tokens."""
        return Short(self._price_s, max_tokens)

    async def score(self, query, passages, *, state=None, deadline_s=None):
        """Say what was cut."""
        cut = [max(0, len(p) - (self._most or len(p))) for p in passages]
        n = len(passages)
        return Scored(np.float32([len(p) for p in passages]), np.ones(n, bool), np.array(cut))


def work(effort, prices):
    """Give worker seconds of the planned counts."""
    return sum(count * price for count, price in zip(effort.counts, prices, strict=True))


@given(
    st.lists(st.floats(1e-4, 1e-1), min_size=1, max_size=3),
    st.integers(1, 200),
    st.floats(1e-3, 10.0),
    st.sampled_from([0.5, 1.0, 2.0]),
)
def test_a_plan_fits_the_time_or_scores_one_candidate(prices, candidates, left_s, workers):
    """Planned work is within the workers' time, and later stages never score more."""
    stages = [(Slow(price), None) for price in prices]
    effort = Planner().plan(
        stages, [100] * candidates, left_s=left_s, share=Share(left_s * workers, workers)
    )
    if effort.counts == (None,) * len(prices):
        assert candidates * sum(prices) <= left_s * workers
        return
    assert list(effort.counts) == sorted(effort.counts, reverse=True)
    assert effort.counts[0] >= 1
    assert effort.counts[0] == 1 or work(effort, prices) <= left_s * workers
    assert effort.decisions[0].code is Code.PLAN


def test_more_time_is_spent():
    """What a coarse front leaves over goes to its deepest stage."""
    planner = Planner({(50, 10): 1.0, (10, 0): 0.5})
    stages = [(Slow(1e-3), None), (Slow(1e-2), None)]
    effort = planner.plan(stages, [100] * 60, left_s=0.4)
    assert effort.counts == (50, 31)
    effort = planner.plan(stages, [100] * 60, left_s=0.05)
    assert effort.counts == (45, 0)


def test_what_a_keep_rule_leaves_over_goes_to_the_stage_before():
    """Behind keep = 12 no time is set aside for a thirteenth; the first stage scores more."""
    stages = [(Slow(1e-3), 12), (Slow(1e-2), None)]
    effort = Planner().plan(stages, [100] * 200, left_s=0.25)
    assert effort.counts[1] == 12
    assert effort.counts[0] == 105


def test_a_keep_rule_lets_a_deeper_plan_fit():
    """After keep = 20 % the second stage is cheap, and everything fits."""
    stages = [(Slow(1e-3), ShareKeep(0.2)), (Slow(1e-2), None)]
    effort = Planner().plan(stages, [100] * 100, left_s=0.4)
    assert effort.counts == (None, None)


def test_without_prices_or_budget_nothing_is_planned():
    """Unknown costs and unlimited time leave the cascade as configured."""
    for left_s, price in ((None, 1e-3), (0.1, 0.0)):
        effort = Planner().plan([(Slow(price), None)], [100] * 50, left_s=left_s)
        assert effort.counts == (None,)
        assert effort.predicted_s is None


def test_a_budget_limits_the_depth_and_says_so():
    """Ten milliseconds a pair and 100 ms leave about nine of 50 candidates, the first ones."""
    passages = ["passage " + "x" * i for i in range(50)]
    with Reranker(Setup((Stage(Slow(1e-2)),), workers=1)) as reranker:
        result = reranker.rerank("query", passages, budget_ms=100)
    scored = [hit.index for hit in result if hit.depth]
    assert 5 <= len(scored) <= 9
    assert sorted(scored) == list(range(len(scored)))
    assert sorted(result.order) == list(range(50))
    assert result.degraded
    assert result.predicted_s == pytest.approx(len(scored) * 1e-2)
    (decision,) = (one for one in result.decisions if one.code is Code.PLAN)
    assert decision.count == 50 - len(scored)


def test_a_stall_does_not_silence_small_budgets_for_ever(tiny_model):
    """When everything seemed too slow for a budget for a while, it is tried again."""
    passages = ["a red fox"] * 3 + ["a blue hen"]
    with Reranker(tiny_model) as reranker:
        reranker.warm_up()
        meter = reranker.setup.stages[0].scorer.throughput.meter
        for length in (4, 8, 16, 32):
            for _ in range(130):
                meter.observe(1, length, 1e9)
        orders = [reranker.rerank("fox", passages, budget_ms=1000) for _ in range(100)]
    assert not any(hit.depth for hit in orders[0])
    assert all(hit.depth for hit in orders[-1])


def test_reading_is_predicted_for_one_worker_and_computing_for_all():
    """Two workers halve what is computed; passages are read by one of them."""

    class Reading(Slow):
        def read_s(self, chars):
            return 4e-3

    plan = Planner().plan([(Reading(1e-2), None)], [100] * 64, left_s=9.0, share=Share(9.0, 2))
    assert plan.worker_s == pytest.approx(0.64)
    assert plan.predicted_s == pytest.approx(64 * 4e-3 + 64 * 6e-3 / 2, rel=0.05)


def test_predictions_follow_what_requests_took():
    """What batches do not explain is learnt from whole requests, and only for those alike."""
    planner = Planner()
    stages, chars = [(Slow(1e-2), None)], [100] * 8
    first = planner.plan(stages, chars, left_s=1.0)
    for _ in range(40):
        planner.learn(planner.plan(stages, chars, left_s=1.0), 0.1)
    assert planner.plan(stages, chars, left_s=1.0).predicted_s == pytest.approx(0.1, rel=0.02)
    assert planner.plan(stages, chars * 8, left_s=9.0).predicted_s == pytest.approx(0.64)
    planner.learn(first, 100.0)
    assert planner.plan(stages, chars, left_s=1.0).predicted_s < 0.12


def test_a_plan_may_leave_later_stages_out():
    """Where the time is short a later stage is skipped, and the first one's order stands."""
    stages = (Stage(Slow(1e-3, "quick")), Stage(Slow(1.0, "thorough")))
    with Reranker(Setup(stages, workers=1)) as reranker:
        result = reranker.rerank("query", ["a", "bb", "ccc"], budget_ms=200)
    assert result.order == (2, 1, 0)
    assert {hit.stage for hit in result} == {"quick"}
    assert any(one.code is Code.STAGE_SKIPPED for one in result.decisions)


def test_profiles_are_named_budgets():
    """`profile` stands for its milliseconds; `time_ms` beats it; unknown names are refused."""
    lexical = {"stages": [{"scorer": "lexical"}]}
    for table, seconds in (
        ({"profile": "interactive-chat"}, 0.3),
        ({"profile": "interactive-chat", "time_ms": 50}, 0.05),
    ):
        with load({**lexical, "budget": table}) as reranker:
            assert reranker.setup.budget.time_s == seconds
    with pytest.raises(ConfigError, match="interactive-chat"):
        load({**lexical, "budget": {"profile": "interactive"}})
    for profile, seconds in PROFILES.items():
        with load({**lexical, "budget": {"profile": profile}}) as reranker:
            assert reranker.setup.budget.time_s == seconds


MEASURED = {(100,): 1.0, (20,): 0.5}
CUT = {40: {(100,): 0.9, (20,): 0.45}}


def test_a_plan_may_cut_passages_where_that_was_measured():
    """All candidates in part beat a few of them whole; more time reads them whole."""
    planner, stages = Planner(MEASURED, CUT), [(Short(1e-4), None)]
    effort = planner.plan(stages, [100] * 100, left_s=0.6)
    assert (effort.counts, effort.short_tokens) == ((100,), 40)
    assert effort.worker_s == pytest.approx(0.4)
    assert "pairs cut to 40 tokens" in effort.decisions[0].detail
    effort = planner.plan(stages, [100] * 100, left_s=2.0)
    assert (effort.counts, effort.short_tokens) == ((None,), None)


def test_nothing_is_cut_that_no_calibration_vouches_for():
    """With plans of whole passages alone, or none at all, passages are read whole."""
    for planner in (Planner(MEASURED), Planner(), Planner(None, CUT)):
        effort = planner.plan([(Short(1e-4), None)], [100] * 100, left_s=0.6)
        assert effort.short_tokens is None
        assert effort.counts[0] < 100


def test_short_passages_do_not_keep_long_ones_from_being_cut():
    """The front of one request is not that of another whose passages are longer."""
    planner, stages = Planner(MEASURED, CUT), [(Short(1e-4), None)]
    assert planner.plan(stages, [40] * 100, left_s=0.3).short_tokens is None
    assert planner.plan(stages, [100] * 100, left_s=0.6).short_tokens == 40


def test_what_a_plan_cuts_is_reported():
    """The passages' unread tokens are in the hits, the plan in the decisions; nobody is lost."""
    passages = [f"{i:03d}" + "x" * (87 + i % 20) for i in range(100)]
    setup = Setup((Stage(Short(1e-4)),), workers=1, planner=Planner(MEASURED, CUT))
    with Reranker(setup) as reranker:
        result = reranker.rerank("query", passages, budget_ms=600)
        whole = reranker.rerank("query", passages)
    assert {hit.truncated_tokens for hit in result} == {50 + i for i in range(20)}
    assert any("cut to 40 tokens" in one.detail for one in result.decisions)
    assert result.degraded
    assert sorted(result.order) == list(range(100))
    assert {hit.truncated_tokens for hit in whole} == {0}


def test_a_share_never_plans_less_for_the_next_stage_than_it_keeps():
    """A share keeps at least its minimum, and the plan of the next stage counts on it."""
    assert _caps([ShareKeep(0.1, min=4), None], 20) == [None, 4]
    assert _caps([ShareKeep(0.5, max=3), None], 20) == [None, 3]
