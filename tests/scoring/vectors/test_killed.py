"""Two processes share a store while one after the other is killed."""

import subprocess
import sys
import time

import numpy as np
import pytest

from rerank_plugins.scoring.vectors.memory import VectorMemory
from rerank_plugins.scoring.vectors.shared_rows import SharedRows
from tests.scoring.vectors import killed


@pytest.mark.parametrize(
    ("operations", "least_kills"),
    [(500, 3), pytest.param(10_000, 20, marks=pytest.mark.slow)],
    ids=["some", "many"],
)
def test_a_killed_process_loses_nothing_that_was_committed(tmp_path, operations, least_kills):
    """With SIGKILL at random moments: no committed vector is lost, and none is wrong."""
    folder, log = tmp_path / "store", tmp_path / "log"
    random = np.random.default_rng(3)
    seeds = iter(range(1_000_000))
    running, kills = [], 0

    def start():
        command = [sys.executable, "-m", "tests.scoring.vectors.killed", str(folder), str(log)]
        command += [str(next(seeds))]
        return subprocess.Popen(command, stderr=subprocess.PIPE)

    done = 0
    while done < operations or kills < least_kills:
        running += [start() for _ in range(2 - len(running))]
        # A process takes part of that time to start, and may be killed then too.
        time.sleep(float(random.uniform(0.3, 1.5)))
        victim = running.pop(int(random.integers(0, 2)))
        victim.kill()
        _, errors = victim.communicate(timeout=30)
        kills += 1
        assert victim.returncode == -9, errors.decode()
        done = len(log.read_text().splitlines()) if log.exists() else 0
    for process in running:
        process.kill()
        process.communicate(timeout=30)
    memory = VectorMemory(SharedRows(folder, killed.BOUND), "model", killed.SIZE)
    lines = [line.split() for line in log.read_text().splitlines()]
    committed = sorted({int(one) for line in lines if len(line) == 4 for one in line})
    assert committed
    assert all(killed.check(memory, committed))
    memory.close()
