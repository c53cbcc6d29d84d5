"""Ray Serve and Ray Data, on a real local cluster."""

import json
import math
import subprocess
import sys
from pathlib import Path

import pytest

from rerank_plugins import Reranker

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_cluster_answers_as_one_process_does(tmp_path: Path) -> None:
    """Two replicas give the engine's order, also while one is killed; datasets resume."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.serving.ray_session", str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=580,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    facts = json.loads(done.stdout.splitlines()[-1])
    with Reranker("lexical") as reranker:
        expected = [one.index for one in reranker.rerank(facts["query"], facts["texts"])]
        assert facts["first"] == expected
        assert facts["answers"] == [expected] * 80
        assert (facts["before"], facts["after"]) == (2, 2)
        assert facts["workers"] == [3, 2], "the replica's processors, or what its file says"
        assert [row["id"] for row in facts["rows"]] == [str(i) for i in range(40)]
        assert facts["kept"]
        for row in facts["rows"]:
            hits = list(reranker.rerank(row["query"], row["passages"]))
            assert row["order"] == [hit.index for hit in hits]
            for found, hit in zip(row["scores"], hits, strict=True):
                assert (found is None) == (hit.score is None)
                assert hit.score is None or math.isclose(found, hit.score, rel_tol=1e-6)
