"""Run every variant on the same weights and text, interleaved, and write what was found.

python run.py --python ENV/bin/python [--infinity ENV2/bin/python] [--plan quick|full] [--out DIR]
              [--resume]
"""

import argparse
import contextlib
import itertools
import json
import os
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import machine
import report

HERE = Path(__file__).parent
ST = "sentence-transformers"
OURS, EXPORTED = "rerank-plugins", "rerank-plugins, graph as exported"
WIDE, WARM = "rerank-plugins, one worker with all cores", "rerank-plugins, warm passage cache"
SAME = "rerank-plugins' graph, thread per request"
PADDED = "onnxruntime, one padded call"
REFERENCE = "transformers"
ALL = (
    REFERENCE,
    OURS,
    EXPORTED,
    WIDE,
    *(f"{ST} torch, batch {size}" for size in (32, 8, 4, 1)),
    *(f"{ST} onnx, batch {size}" for size in (32, 8, 4, 1)),
    f"{ST} openvino, batch 4",
    f"{ST} openvino f32, batch 4",
    "openvino, our batching",
    "flashrank",
    "fastembed",
    "infinity",
)
FEW = (
    REFERENCE,
    OURS,
    EXPORTED,
    f"{ST} torch, batch 32",
    f"{ST} torch, batch 4",
    f"{ST} onnx, batch 4",
    "openvino, our batching",
    "flashrank",
    "fastembed",
)
# Two hundred passages in one padded call take 14 GB.
LONG = tuple(name for name in FEW if name != "flashrank")
# Which variants on which weights and workload, in how many rounds.
PLANS: Mapping[str, tuple[tuple[str, str, tuple[str, ...], int], ...]] = {
    "quick": (
        ("MiniLM-L6", "skewed-100", FEW, 5),
        ("MiniLM-L6", "skewed-10", FEW, 10),
        ("MiniLM-L6", "uniform256-30", FEW, 5),
        ("TinyBERT-L2", "skewed-100", (*FEW, WARM), 9),
        ("base", "skewed-10", FEW, 3),
    ),
    "full": (
        ("MiniLM-L6", "skewed-10", (*ALL, PADDED), 10),
        ("MiniLM-L6", "skewed-40", (*ALL, PADDED), 3),
        ("MiniLM-L6", "skewed-100", ALL, 5),
        ("MiniLM-L6", "skewed-200", LONG, 3),
        ("MiniLM-L6", "uniform256-30", (*ALL, PADDED), 5),
        ("MiniLM-L6", "uniform512-10", FEW, 5),
        ("MiniLM-L12", "skewed-40", FEW, 3),
        ("TinyBERT-L2", "skewed-100", (*FEW, WARM), 15),
        ("base", "skewed-10", (*FEW, WIDE, f"{ST} torch, batch 1", f"{ST} onnx, batch 1"), 5),
        ("base", "skewed-40", FEW, 2),
    ),
}
# A request of ten passages says much about its lengths and little about others: so many draws.
DRAWS = {"skewed-10": 5}
CALLERS = (1, 4, 10, 16)
# Requests of each caller: a burst that nothing follows, and callers who ask again.
EACH = (1, 3)
# Which variants serve concurrent callers: under a lock or not, in how many rounds.
CROWDS = (
    (OURS, False, 3),
    (SAME, False, 3),
    (PADDED, False, 1),
    (f"{ST} torch, batch 32", True, 1),
)
AMONG = (OURS, SAME)
FIRST = f"{OURS}, first start on a machine"
COLD = (OURS, f"{ST} torch, batch 32", f"{ST} onnx, batch 32", "flashrank", "fastembed")
# The reference is slow, and needed for its scores.
REFERENCE_ROUNDS = 2


@dataclass(slots=True)
class Worker:
    """A variant in its own process."""

    name: str
    process: subprocess.Popen[str]
    seconds: list[float] = field(default_factory=list)
    scores: dict[int, object] = field(default_factory=dict)
    last: dict[str, object] = field(default_factory=dict)

    @classmethod
    def start(
        cls,
        name: str,
        folder: Path,
        pythons: Mapping[str, str],
        variables: Mapping[str, str] | None = None,
    ) -> Self:
        """Start the process, which loads the model meanwhile; `variables` add to its environment.

        Installed packages are compiled to byte code, and so is this one after its first start.
        """
        inherited = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
        python = pythons["infinity" if name == "infinity" else "peers"]
        process = subprocess.Popen(
            [python, str(HERE / "worker.py"), name, str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env={**inherited, **(variables or {})},
        )
        return cls(name, process)

    def wait(self) -> None:
        """Wait until the model is loaded."""
        if self._read() is None:
            self.last = {"error": "did not start: run worker.py by hand to see why"}

    def ask(self, *, draw: int = 0, **command: object) -> dict[str, object]:
        """Have one command run; keep its time and its answer."""
        if "error" in self.last:
            return self.last
        try:
            self.process.stdin.write(json.dumps({**command, "draw": draw}) + "\n")
            self.process.stdin.flush()
            self.last = self._read() or {"error": "ended while it ran"}
        except BrokenPipeError:
            self.last = {"error": "ended while it ran"}
        if "seconds" in self.last:
            self.seconds.append(float(self.last["seconds"]))
            self.scores[draw] = self.last.pop("scores")
        return self.last

    def end(self) -> None:
        """Close the input, which ends the process."""
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()
        try:
            self.process.wait(timeout=60)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def _read(self) -> dict[str, object] | None:
        line = self.process.stdout.readline()
        return json.loads(line) if line else None


def throughput(
    folder: Path, load: str, names: tuple[str, ...], rounds: int, pythons: Mapping[str, str]
) -> Iterator[dict[str, object]]:
    """Time every variant once a round, round after round; the first round only warms up."""
    workers = started(names, folder, pythons)
    draws = DRAWS.get(load, 1)
    try:
        for turn in range(rounds + 1):
            for worker in workers:
                if worker.name != REFERENCE or turn <= max(REFERENCE_ROUNDS, draws):
                    worker.ask(workload=load, draw=turn % draws)
            if turn == 0:
                for worker in workers:
                    worker.seconds.clear()
        for worker in workers:
            kept = {"seconds": worker.seconds, "scores": worker.scores}
            yield {**worker.last, "variant": worker.name, "draws": draws, **kept}
    finally:
        for worker in workers:
            worker.end()


def started(names: Sequence[str], folder: Path, pythons: Mapping[str, str]) -> list[Worker]:
    """Start processes, as many as there are cores at a time."""
    workers: list[Worker] = []
    together = os.cpu_count() or 1
    for place in range(0, len(names), together):
        batch = [Worker.start(name, folder, pythons) for name in names[place : place + together]]
        for worker in batch:
            worker.wait()
        workers += batch
    return workers


def crowds(folder: Path, pythons: Mapping[str, str]) -> Iterator[dict[str, object]]:
    """Let 1 to 16 callers ask at once, once or again and again."""
    workers = started([name for name, _, _ in CROWDS], folder, pythons)
    for worker in workers:
        worker.ask(workload="skewed-20")
    for callers, each in itertools.product(CALLERS, EACH):
        found: dict[str, list[dict[str, object]]] = {}
        for turn in range(max(rounds for _, _, rounds in CROWDS)):
            for worker, (name, locked, rounds) in zip(workers, CROWDS, strict=True):
                if turn < rounds:
                    answer = worker.ask(
                        workload="skewed-20", callers=callers, each=each, locked=locked
                    )
                    found.setdefault(name, []).append(dict(answer))
        for name, locked, _ in CROWDS:
            runs = found[name]
            yield {
                "variant": name,
                "callers": callers,
                "each": each,
                "locked": locked,
                "runs": runs,
            }
    for worker in workers:
        worker.end()


def among(folder: Path, pythons: Mapping[str, str]) -> Iterator[dict[str, object]]:
    """Send requests of five passages while two callers send two hundred each, again and again."""
    for worker in started(AMONG, folder, pythons):
        worker.ask(workload="skewed-5")
        found = worker.ask(workload="skewed-5", among="skewed-200", callers=2)
        worker.end()
        yield {"variant": worker.name, **found}


def cold(folder: Path, pythons: Mapping[str, str], rounds: int = 7) -> Iterator[dict[str, object]]:
    """Time fresh processes in turn, from their start to the ranking of ten passages.

    Making the passages does not count. The first round only fills caches; a first start of ours
    has an empty folder for its own.
    """
    found: dict[str, list[float]] = {name: [] for name in (*COLD, FIRST)}
    for turn in range(rounds + 1):
        for name, seconds in found.items():
            with tempfile.TemporaryDirectory() as empty:
                fresh = {"XDG_CACHE_HOME": empty} if name == FIRST else {}
                began = time.perf_counter()
                worker = Worker.start(OURS if name == FIRST else name, folder, pythons, fresh)
                worker.wait()
                ready_s = time.perf_counter() - began
                worker.ask(workload="skewed-10")
                if turn:
                    seconds.append(ready_s + worker.seconds[0])
                worker.end()
    for name, seconds in found.items():
        yield {"variant": name, "seconds": seconds}


def weights(work: Path, geometry: str, python: str) -> Path:
    """Make a checkpoint unless it is there; return its folder."""
    folder = work / geometry
    if not (folder / "origin.txt").is_file():
        command = [python, str(HERE / "checkpoint.py"), geometry, str(folder)]
        subprocess.run(command, check=True, capture_output=True)
    return folder


def main() -> None:
    """Make the checkpoints, run the plan, write the report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--python", required=True, help="interpreter of the peers' environment")
    parser.add_argument("--infinity", default="", help="interpreter of infinity's environment")
    parser.add_argument("--plan", choices=PLANS, default="full")
    parser.add_argument("--work", type=Path, default=HERE / "build", help="folder of checkpoints")
    parser.add_argument("--out", type=Path, default=HERE / "results")
    parser.add_argument("--resume", action="store_true", help="keep what OUT has, run the rest")
    options = parser.parse_args()
    pythons = {"peers": options.python, "infinity": options.infinity}
    origins: dict[str, str] = {}
    rows: list[dict[str, object]] = []
    facts = {"machine": machine.describe(options.python), "weights": origins, "rows": rows}
    found = options.out / "results.json"
    if options.resume and found.is_file():
        facts |= json.loads(found.read_text())
        rows, origins = facts["rows"], facts["weights"]
    done = {(row["geometry"], row["workload"]) for row in rows}
    parts = {"crowds": crowds, "among": among, "cold": cold}
    for name, measure in parts.items():
        if name not in facts:
            print(name, flush=True)
            folder = weights(options.work, "MiniLM-L6", options.python)
            facts[name] = list(measure(folder, pythons))
            report.write(facts, options.out)
    for geometry, load, names, rounds in PLANS[options.plan]:
        if (geometry, load) in done:
            continue
        folder = weights(options.work, geometry, options.python)
        origins[geometry] = (folder / "origin.txt").read_text()
        present = tuple(name for name in names if name != "infinity" or options.infinity)
        print(f"{geometry} {load}: {len(present)} variants, {rounds} rounds", flush=True)
        rows += [
            {"geometry": geometry, "workload": load, **row}
            for row in throughput(folder, load, present, rounds, pythons)
        ]
        report.write(facts, options.out)
    print(f"wrote {options.out}")


if __name__ == "__main__":
    main()
