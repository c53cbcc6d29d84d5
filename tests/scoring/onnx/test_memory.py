"""Memory is bounded: requests of any size and number leave the process as large as it was."""

import gc
import random
from pathlib import Path

import pytest

from rerank_plugins import Reranker
from rerank_plugins.config.build import build_setup
from rerank_plugins.config.read import parse_settings
from tests.scoring.tiny import WORDS, folder


def resident_bytes() -> int:
    """Read this process's resident memory."""
    for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    pytest.skip("no /proc on this system")


@pytest.mark.slow
def test_ten_thousand_mixed_requests_leave_memory_flat(tmp_path):
    """After a warm stretch, thousands more requests of mixed sizes add less than 2 %."""
    source = random.Random(5)
    stage = {"scorer": str(folder(tmp_path)), "graph_cache": False, "token_cache_bytes": 2**18}
    with Reranker(build_setup(parse_settings({"stages": [stage]}, "the test"))) as ours:

        def serve(requests: int) -> int:
            for _ in range(requests):
                passages = [
                    " ".join(source.choices(WORDS, k=source.randint(1, 12)))
                    for _ in range(source.choice((1, 2, 3, 5, 20)))
                ]
                ours.rerank(" ".join(source.choices(WORDS, k=2)), passages)
            gc.collect()
            return resident_bytes()

        warm = serve(2_000)
        later = serve(8_000)
    assert later <= warm * 1.02, f"{warm} -> {later} bytes"


@pytest.mark.slow
def test_a_request_of_ten_thousand_candidates_does_not_grow_the_process_again(tmp_path):
    """The first such request sets the size; the following ones fit into it."""
    source = random.Random(6)
    passages = [" ".join(source.choices(WORDS, k=source.randint(1, 10))) for _ in range(10_000)]
    stage = {"scorer": str(folder(tmp_path)), "graph_cache": False}
    with Reranker(build_setup(parse_settings({"stages": [stage]}, "the test"))) as ours:
        for _ in range(2):
            ours.rerank("a hedge", passages, top_k=5)
        gc.collect()
        once = resident_bytes()
        for _ in range(3):
            ours.rerank("a badge", passages, top_k=5)
        gc.collect()
        assert resident_bytes() <= once * 1.02
