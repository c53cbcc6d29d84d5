"""Throughput of offline reranking on Ray, from one actor to as many as there are processors.

    python benchmarks/ray_actors.py --actors 1 2 --rows 64

Each actor is one engine on one processor. The clock runs from the call to the last file on disk, so
it counts the start of the actors and the loading of the model, which long jobs do not notice:
`pairs_per_s` of a few rows is a lower bound. Prints JSON.
"""

import argparse
import json
import os
import random
import sys
import tempfile
import time
from pathlib import Path

import ray

from rerank_plugins.serving.ray import RayOptions, rerank_dataset

CORPUS = Path(__file__).parent.parent / "examples" / "corpus" / "python-docs.jsonl"


def rows(many: int, depth: int, seed: int = 0) -> list[dict[str, object]]:
    """Draw `many` rows of a title as the query and `depth` passages."""
    corpus = [json.loads(line) for line in CORPUS.read_text(encoding="utf-8").splitlines()]
    draw = random.Random(seed)
    return [
        {
            "id": str(i),
            "query": draw.choice(corpus)["title"],
            "passages": [one["text"] for one in draw.sample(corpus, depth)],
        }
        for i in range(many)
    ]


def measure(options: argparse.Namespace) -> list[dict[str, float]]:
    """Rerank the same rows with each number of actors, into a fresh folder each time."""
    found = []
    asked = rows(options.rows, options.depth)
    for actors in options.actors:
        dataset = ray.data.from_items(asked)
        with tempfile.TemporaryDirectory() as folder:
            started = time.perf_counter()
            done = rerank_dataset(
                dataset,
                Path(folder),
                options=RayOptions(model=options.model),
                actors=actors,
                rows_per_batch=options.rows_per_batch,
            )
            count = done.count()
            wall_s = time.perf_counter() - started
        pairs = options.rows * options.depth
        found.append(
            {"actors": actors, "rows": count, "wall_s": wall_s, "pairs_per_s": pairs / wall_s}
        )
        sys.stderr.write(f"{actors} actors: {pairs / wall_s:.1f} pairs/s\n")
    return found


def main() -> None:
    """Read the command line, start a local Ray and print what was measured."""
    parser = argparse.ArgumentParser(description=__doc__)
    cores = os.cpu_count() or 1
    parser.add_argument("--actors", type=int, nargs="+", default=list(range(1, cores + 1)))
    parser.add_argument("--rows", type=int, default=64)
    parser.add_argument("--depth", type=int, default=20)
    parser.add_argument("--rows-per-batch", type=int, default=4)
    parser.add_argument("--model", default="embedded")
    options = parser.parse_args()
    ray.init(num_cpus=max(options.actors) + 1, logging_level="ERROR", log_to_driver=False)
    sys.stdout.write(json.dumps({"cores": cores, "found": measure(options)}, indent=1) + "\n")


if __name__ == "__main__":
    main()
