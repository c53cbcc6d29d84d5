"""How many workers there are, and that requests are cut for as many."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from rerank_plugins.scoring.onnx.throughput import Throughput
from rerank_plugins.scoring.runtime import process


@given(st.integers(min_value=1, max_value=1000))
def test_workers_and_their_threads_use_the_cores_and_no_more(inside):
    """At least one worker, even where it asks for more threads than there are cores."""
    count = process.workers(inside)
    assert count == 1 or count * inside <= process.cores() < (count + 1) * inside


def test_one_worker_with_all_cores_gets_its_requests_in_fewer_batches():
    """Batches are cut so that workers end together; a single one needs no cutting for that."""
    lengths = np.full(24 * process.cores(), 16, dtype=np.int64)
    one, each = (
        Throughput(max_tokens=64, batch_tokens=4096, intra_threads=inside).batches(
            lengths, left_s=None
        )
        for inside in (0, 1)
    )
    assert sum(len(batch.pairs) for batch in one) == len(lengths)
    assert len(one) <= len(each)
    assert (len(one) < len(each)) == (process.cores() > 1)
