"""A Ray session in a process of its own: serve on two replicas, kill one, rerank a dataset."""

import json
import os
import signal
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import ray
from ray import serve
from ray.util.state import list_actors

from rerank_plugins.serving.ray import RayOptions, app, open_reranker, rerank_dataset

QUERY = "red fox"
TEXTS = ["a hen in the yard", "", "the red fox sleeps", "a red barn"]
URL = "http://127.0.0.1:8000/v1/rerank"


def ask(_: int = 0) -> list[int]:
    """Ask over HTTP, again where the replica that had the request died."""
    for _attempt in range(50):
        try:
            answer = httpx.post(URL, json={"query": QUERY, "documents": TEXTS}, timeout=30.0)
        except httpx.TransportError:
            answer = None
        if answer is not None and answer.status_code == 200:
            return [one["index"] for one in answer.json()["results"]]
        time.sleep(0.2)
    return []


def replicas() -> list[str]:
    """Name the live replica actors."""
    actors = list_actors(filters=[("state", "=", "ALIVE")])
    return sorted(one.actor_id for one in actors if "Replica" in one.class_name)


def kill_one() -> None:
    """Kill a replica's process."""
    actor = next(
        one
        for one in list_actors(filters=[("state", "=", "ALIVE")], detail=True)
        if "Replica" in one.class_name
    )
    os.kill(actor.pid, signal.SIGKILL)


def workers(settings: str, folder: Path) -> int | None:
    """Open what a replica with three processors opens, and tell its worker threads."""
    file = folder / "rerank.toml"
    file.write_text(settings)
    with open_reranker(RayOptions(config=str(file), cpus=3)) as reranker:
        return reranker.setup.workers


def main(output: Path) -> None:
    """Print what happened as JSON."""
    # Ray gives its proxy 5 s to start, which a busy machine needs for its imports alone.
    os.environ["RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S"] = "60"
    ray.init(num_cpus=3, logging_level="ERROR", log_to_driver=False)
    options = RayOptions(model="lexical", min_replicas=2, max_replicas=2, open=True)
    serve.run(app(options), name="rerank", route_prefix="/")
    facts: dict[str, object] = {"query": QUERY, "texts": TEXTS}
    facts |= {"before": len(replicas()), "first": ask()}
    with ThreadPoolExecutor(4) as pool:
        answers = [pool.submit(ask) for _ in range(40)]
        kill_one()
        answers += [pool.submit(ask) for _ in range(40)]
        facts["answers"] = [answer.result() for answer in answers]
    deadline = time.monotonic() + 60.0
    while len(replicas()) < 2 and time.monotonic() < deadline:
        time.sleep(0.5)
    facts["after"] = len(replicas())
    serve.shutdown()
    stage = '[[stages]]\nscorer = "lexical"\n'
    facts["workers"] = [
        workers(stage, output.parent),
        workers(f"[service]\nworkers = 2\n{stage}", output.parent),
    ]
    rows = [{"id": str(i), "query": QUERY, "passages": TEXTS[: 2 + i % 3]} for i in range(40)]
    lexical = RayOptions(model="lexical")
    rerank_dataset(ray.data.from_items(rows[:20]), output, options=lexical, rows_per_batch=5)
    written = {file.name for file in output.glob("*.parquet")}
    whole = rerank_dataset(ray.data.from_items(rows), output, options=lexical, rows_per_batch=5)
    facts["rows"] = sorted(whole.take_all(), key=lambda row: int(row["id"]))
    facts["kept"] = written <= {file.name for file in output.glob("*.parquet")}
    sys.stdout.write(json.dumps(facts) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
