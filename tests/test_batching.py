"""Micro-batches."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rerank_plugins.batching import plan
from rerank_plugins.scorers.tuning import DEFAULT_BATCH_TOKENS

LENGTHS = st.lists(st.integers(1, 512), max_size=120)
BUDGET = st.integers(1, 4096)
TIER = st.none() | st.integers(1, 40)


@given(LENGTHS, BUDGET, st.integers(1, 70), TIER)
def test_no_pair_is_lost_or_run_twice(lengths, budget, most, tier):
    """The batches hold every pair exactly once."""
    batches = plan(lengths, max_batch_tokens=budget, max_batch_pairs=most, tier_pairs=tier)
    assert sorted(pair for batch in batches for pair in batch.pairs) == list(range(len(lengths)))


@given(LENGTHS, BUDGET, st.integers(1, 70), st.floats(0.0, 0.5), TIER)
def test_a_batch_keeps_its_bounds(lengths, budget, most, padding, tier):
    """No batch of several pairs exceeds its tokens, its pairs or its share of padding."""
    batches = plan(
        lengths,
        max_batch_tokens=budget,
        max_batch_pairs=most,
        max_padding=padding,
        tier_pairs=tier,
    )
    for batch in batches:
        assert batch.length_tokens == max(lengths[pair] for pair in batch.pairs)
        if len(batch.pairs) > 1:
            real = sum(lengths[pair] for pair in batch.pairs)
            assert batch.padded_tokens <= budget
            assert len(batch.pairs) <= most
            assert batch.padded_tokens - real <= padding * batch.padded_tokens + 1e-9


@given(LENGTHS, st.integers(1, 40))
def test_tiers_run_best_first(lengths, tier):
    """Every pair of a tier comes before every pair of the next."""
    batches = plan(lengths, max_batch_tokens=512, tier_pairs=tier)
    tiers = [pair // tier for batch in batches for pair in batch.pairs]
    assert tiers == sorted(tiers)


@given(LENGTHS)
def test_the_longest_batches_come_first(lengths):
    """Without tiers the last batch, which ends the request, is the shortest."""
    sizes = [batch.length_tokens for batch in plan(lengths, max_batch_tokens=512)]
    assert sizes == sorted(sizes, reverse=True)


@given(LENGTHS)
def test_the_plan_follows_from_the_lengths(lengths):
    """Equal lengths give equal plans, whatever holds them."""
    array = np.array(lengths, dtype=np.int64)
    assert plan(lengths, max_batch_tokens=512) == plan(array, max_batch_tokens=512)


@pytest.mark.parametrize("count", [10, 40, 100, 200])
@pytest.mark.parametrize("median", [120, 200])
def test_padding_is_not_worth_naming(count, median):
    """On skewed lengths up to 512 tokens the defaults pad less than 3 %."""
    random = np.random.default_rng(count * median)
    real = padded = 0
    for _ in range(20):
        lengths = np.clip(random.lognormal(np.log(median), 0.6, count), 12, 512).astype(np.int64)
        batches = plan(lengths, max_batch_tokens=DEFAULT_BATCH_TOKENS)
        real += int(lengths.sum())
        padded += sum(batch.padded_tokens for batch in batches)
    assert (padded - real) / padded < 0.03
