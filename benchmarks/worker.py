"""One variant in one process: reads commands as JSON lines, answers with times and scores."""

import json
import os
import resource
import sys
import threading
import time
from pathlib import Path

from peers import VARIANTS, Score
from text import workload


def answer(score: Score, command: dict[str, object]) -> dict[str, object]:
    """Run one command: a request, or many concurrent ones."""
    load = workload(str(command["workload"]))
    if command.get("callers"):
        return concurrent(score, load.name, int(command["callers"]), locked=bool(command["locked"]))
    started = time.perf_counter()
    scores = score(load.query, load.passages)
    seconds = time.perf_counter() - started
    return {"seconds": seconds, "scores": [float(one) for one in scores]}


def concurrent(score: Score, name: str, callers: int, *, locked: bool) -> dict[str, object]:
    """Let `callers` threads send three requests each, all at once; give every latency."""
    load = workload(name)
    lock = threading.Lock()
    latencies: list[float] = []
    gate = threading.Barrier(callers + 1)

    def call() -> None:
        gate.wait()
        for _ in range(3):
            started = time.perf_counter()
            if locked:
                with lock:
                    score(load.query, load.passages)
            else:
                score(load.query, load.passages)
            latencies.append(time.perf_counter() - started)

    threads = [threading.Thread(target=call) for _ in range(callers)]
    for thread in threads:
        thread.start()
    gate.wait()
    started = time.perf_counter()
    for thread in threads:
        thread.join()
    seconds = time.perf_counter() - started
    passages = len(load.passages) * len(latencies)
    return {"latencies": latencies, "passages_s": passages / seconds}


def main() -> None:
    """Build the variant, say so, then serve until the input ends."""
    # Libraries print; answers must have a channel of their own.
    channel = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    score = VARIANTS[sys.argv[1]](Path(sys.argv[2]))
    channel.write(json.dumps({"ready": True}) + "\n")
    for line in sys.stdin:
        try:
            reply = answer(score, json.loads(line))
        except Exception as error:  # noqa: BLE001 - the row says what went wrong
            reply = {"error": f"{type(error).__name__}: {error}"[:300]}
        reply["rss_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        channel.write(json.dumps(reply) + "\n")


if __name__ == "__main__":
    main()
