"""One variant in one process: reads commands as JSON lines, answers with times and scores."""

import contextlib
import json
import os
import resource
import sys
import threading
import time
from pathlib import Path

from peers import VARIANTS, Score
from text import Workload, workload

# Requests timed alone, and as many beside others.
AMONG = 20


def answer(score: Score, command: dict[str, object]) -> dict[str, object]:
    """Run one command: a request, or many concurrent ones."""
    load = workload(str(command["workload"]), int(command.get("draw", 0)))
    if command.get("among"):
        return among(score, load, workload(str(command["among"])), int(command["callers"]))
    if command.get("callers"):
        callers, each = int(command["callers"]), int(command["each"])
        return concurrent(score, load, callers, each, locked=bool(command["locked"]))
    started = time.perf_counter()
    scores = score(load.query, load.passages)
    seconds = time.perf_counter() - started
    reply = {"seconds": seconds, "scores": [float(one) for one in scores]}
    reading_s = getattr(score, "reading_s", None)
    return reply if reading_s is None else {**reply, "reading": reading_s / seconds}


def among(score: Score, load: Workload, other: Workload, callers: int) -> dict[str, object]:
    """Time a request alone, and while `callers` threads send one `other` after the next."""
    alone = [timed(score, load) for _ in range(AMONG)]
    over = threading.Event()

    def call() -> None:
        while not over.is_set():
            score(other.query, other.passages)

    threads = [threading.Thread(target=call) for _ in range(callers)]
    for thread in threads:
        thread.start()
    time.sleep(0.5)
    busy = []
    for _ in range(AMONG):
        busy.append(timed(score, load))
        time.sleep(0.05)
    over.set()
    for thread in threads:
        thread.join()
    return {"alone": alone, "busy": busy}


def timed(score: Score, load: Workload) -> float:
    """Return the seconds of one request."""
    started = time.perf_counter()
    score(load.query, load.passages)
    return time.perf_counter() - started


def concurrent(
    score: Score, load: Workload, callers: int, each: int, *, locked: bool
) -> dict[str, object]:
    """Let `callers` threads send `each` requests one by one, all at once; return every latency."""
    lock = threading.Lock()
    latencies: list[float] = []
    gate = threading.Barrier(callers + 1)

    def call() -> None:
        gate.wait()
        for _ in range(each):
            started = time.perf_counter()
            with lock if locked else contextlib.nullcontext():
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
