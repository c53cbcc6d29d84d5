"""Big requests and many threads: bounded memory, the same scores."""

import gc
import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from rerank_plugins import Reranker
from tests import tiny

QUERY = "what is a red fox"


def resident_bytes():
    """Read this process's resident memory."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096


def requests(count):
    """Make requests of different sizes."""
    passages = tiny.passages(64)
    return [passages[i % 40 : i % 40 + 4 + i % 16] for i in range(count)]


def score_lists(reranker, work, threads):
    """Answer every request and give the scores of each, in the candidates' order."""

    def one(passages):
        result = reranker.rerank(QUERY, passages)
        assert not result.degraded
        return [hit.score for hit in sorted(result, key=lambda hit: hit.index)]

    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(one, work))


@pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")
def test_sixteen_threads_get_the_scores_of_one_in_flat_memory(tiny_model):
    """2,000 calls from 16 threads give a single thread's scores (1e-5), and memory stays flat."""
    work = requests(40)
    with Reranker(tiny_model) as reranker:
        reranker.warm_up()
        expected = score_lists(reranker, work, 1)
        score_lists(reranker, work * 10, 16)
        gc.collect()
        before = resident_bytes()
        found = score_lists(reranker, work * 50, 16)
        gc.collect()
        grown = resident_bytes() - before
    assert len(found) == 2000
    for scores, same in zip(found, expected * 50, strict=True):
        assert scores == pytest.approx(same, abs=1e-5)
    assert grown < 8 * 2**20, f"{grown >> 10} KiB more after 2,000 calls"


def test_threads_get_the_embedded_models_scores(tmp_path):
    """The model that ships gives threads the scores it gives a single caller (1e-5)."""
    work = requests(8)
    with Reranker() as reranker:
        reranker.warm_up()
        expected = score_lists(reranker, work, 1)
        found = score_lists(reranker, work * 2, 8)
    for scores, same in zip(found, expected * 2, strict=True):
        assert scores == pytest.approx(same, abs=1e-5)


BIG = """
import json, resource, sys
from rerank_plugins import Reranker
folder, what = sys.argv[1:]
texts = {
    "many": lambda: [f"the red fox number {i} of the house" for i in range(10_000)],
    "huge": lambda: ["the quick brown fox jumps over the lazy dog " * 120_000],
}[what]()
with Reranker(folder) as reranker:
    reranker.warm_up()
    reranker.rerank("red fox", texts[:1] if what == "many" else ["a red fox"])
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    result = reranker.rerank("red fox", texts)
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(json.dumps([len(result.order), result.degraded, (after - before) / 1024,
                  sum(len(text) for text in texts), result.usage.truncated_tokens]))
"""


def big(folder, what):
    """Answer one big request in a process of its own; give facts about it."""
    done = subprocess.run(
        [sys.executable, "-c", BIG, str(folder), what],
        capture_output=True,
        text=True,
        check=True,
        timeout=240,
    )
    return json.loads(done.stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss is in other units elsewhere")
def test_ten_thousand_candidates_take_bounded_memory(tiny_model):
    """10,000 candidates are all scored, for less than 150 MiB above an idle reranker."""
    count, degraded, more_mib, _, _ = big(tiny_model, "many")
    assert (count, degraded) == (10_000, False)
    assert more_mib < 150


@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss is in other units elsewhere")
def test_a_passage_of_five_megabytes_takes_bounded_memory(tiny_model):
    """A 5 MB passage is scored by its windows, its rest reported, for less than 250 MiB more."""
    count, degraded, more_mib, chars, truncated = big(tiny_model, "huge")
    assert chars > 5_000_000
    assert (count, degraded) == (1, False)
    assert truncated > 1_000_000
    assert more_mib < 250
