"""Micro-batches."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rerank_plugins.rules.batching import end_tokens, plan, spread
from rerank_plugins.scoring.onnx.throughput import DEFAULT_BATCH_TOKENS

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


@given(LENGTHS, st.integers(1, 8), BUDGET, st.floats(0.0, 64.0))
def test_a_request_spread_over_workers_is_whole_and_within_bounds(
    lengths, workers, budget, overhead
):
    """Every pair runs once, biggest batch first, no batch of several pairs over its tokens."""
    batches = spread(
        np.array(lengths, dtype=np.int64),
        workers=workers,
        max_batch_tokens=budget,
        max_padding=0.03,
        overhead_tokens=overhead,
    )
    assert sorted(pair for batch in batches for pair in batch.pairs) == list(range(len(lengths)))
    sizes = [batch.padded_tokens for batch in batches]
    assert sizes == sorted(sizes, reverse=True)
    assert all(len(one.pairs) == 1 or one.padded_tokens <= budget for one in batches)
    assert sum(sizes) - sum(lengths) <= 0.03 * sum(sizes) + 1e-9


@given(st.lists(st.integers(8, 512), min_size=1, max_size=32), st.integers(1, 4))
def test_a_small_request_never_ends_later_than_cut_without_looking(lengths, workers):
    """The plan taken is at least as good as batches without padding, given out in any size."""
    array = np.array(lengths[: 16 * workers], dtype=np.int64)
    limits = {"max_batch_tokens": 512, "max_padding": 0.03}
    taken = spread(array, workers=workers, overhead_tokens=23.0, **limits)
    plain = spread(array, workers=workers, overhead_tokens=0.0, **limits)
    ends = [end_tokens(one, workers=workers, overhead_tokens=23.0) for one in (taken, plain)]
    assert ends[0] <= ends[1] + 1e-9


def test_ten_passages_keep_two_workers_equally_busy():
    """Skewed lengths: both workers end within 3 % of each other."""
    lengths = np.array([39, 46, 93, 102, 103, 106, 132, 133, 197, 219])
    batches = spread(
        lengths, workers=2, max_batch_tokens=512, max_padding=0.03, overhead_tokens=23.0
    )
    work = sum(batch.padded_tokens + 23.0 for batch in batches)
    assert end_tokens(batches, workers=2, overhead_tokens=23.0) <= 1.03 * work / 2
