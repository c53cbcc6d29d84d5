"""Run every variant on the same weights and text, interleaved, and write what was found.

python run.py --python ENV/bin/python [--infinity ENV2/bin/python] [--plan quick|full] [--out DIR]
"""

import argparse
import json
import subprocess
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import machine
import report

HERE = Path(__file__).parent
ST = "sentence-transformers"
ALL = (
    "transformers",
    "rerank-plugins",
    "rerank-plugins, graph as exported",
    *(f"{ST} torch, batch {size}" for size in (32, 8, 4, 1)),
    *(f"{ST} onnx, batch {size}" for size in (32, 8, 4, 1)),
    f"{ST} openvino, batch 4",
    f"{ST} openvino f32, batch 4",
    "openvino, our batching",
    "onnxruntime, one padded call",
    "flashrank",
    "fastembed",
    "infinity",
)
FEW = (
    "transformers",
    "rerank-plugins",
    "rerank-plugins, graph as exported",
    f"{ST} torch, batch 32",
    f"{ST} torch, batch 4",
    f"{ST} onnx, batch 4",
    "openvino, our batching",
    "flashrank",
    "fastembed",
)
TINY = (*FEW, "rerank-plugins, warm passage cache")
# Which variants on which weights and workload, in how many rounds.
PLANS: Mapping[str, tuple[tuple[str, str, tuple[str, ...], int], ...]] = {
    "quick": (
        ("MiniLM-L6", "skewed-100", FEW, 5),
        ("MiniLM-L6", "skewed-10", FEW, 9),
        ("MiniLM-L6", "uniform256-30", FEW, 5),
        ("TinyBERT-L2", "skewed-100", TINY, 9),
        ("base", "skewed-10", FEW, 3),
    ),
    "full": (
        *(("MiniLM-L6", f"skewed-{k}", ALL, 7) for k in (10, 40, 100, 200)),
        ("MiniLM-L6", "uniform256-30", ALL, 7),
        ("MiniLM-L6", "uniform512-10", ALL, 7),
        ("MiniLM-L12", "skewed-40", FEW, 5),
        ("TinyBERT-L2", "skewed-100", TINY, 15),
        ("base", "skewed-10", FEW, 5),
        ("base", "skewed-40", FEW, 3),
    ),
}
CALLERS = (1, 4, 10, 16)
CROWDS = (
    ("rerank-plugins", False),
    ("onnxruntime, one padded call", False),
    (f"{ST} torch, batch 32", True),
)
COLD = ("rerank-plugins", f"{ST} torch, batch 32", f"{ST} onnx, batch 32", "flashrank", "fastembed")


@dataclass(slots=True)
class Worker:
    """A variant in its own process."""

    name: str
    process: subprocess.Popen[str]
    seconds: list[float] = field(default_factory=list)
    last: dict[str, object] = field(default_factory=dict)

    @classmethod
    def start(cls, name: str, folder: Path, pythons: Mapping[str, str]) -> Self:
        """Start the process and wait until the model is loaded."""
        python = pythons["infinity" if name == "infinity" else "peers"]
        process = subprocess.Popen(
            [python, str(HERE / "worker.py"), name, str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        worker = cls(name, process)
        if worker._read() is None:
            worker.last = {"error": "did not start: run worker.py by hand to see why"}
        return worker

    def ask(self, **command: object) -> dict[str, object]:
        """Have one command run; keep its time and its answer."""
        if "error" in self.last:
            return self.last
        self.process.stdin.write(json.dumps(command) + "\n")
        self.process.stdin.flush()
        self.last = self._read() or {"error": "ended while it ran"}
        if "seconds" in self.last:
            self.seconds.append(float(self.last["seconds"]))
        return self.last

    def end(self) -> None:
        """Close the input, which ends the process."""
        self.process.stdin.close()
        self.process.wait(timeout=60)

    def _read(self) -> dict[str, object] | None:
        line = self.process.stdout.readline()
        return json.loads(line) if line else None


def throughput(
    folder: Path, load: str, names: tuple[str, ...], rounds: int, pythons: Mapping[str, str]
) -> Iterator[dict[str, object]]:
    """Time every variant once a round, round after round; the first round only warms up."""
    workers = [Worker.start(name, folder, pythons) for name in names]
    try:
        for turn in range(rounds + 1):
            for worker in workers:
                worker.ask(workload=load)
            if turn == 0:
                for worker in workers:
                    worker.seconds.clear()
        for worker in workers:
            yield {**worker.last, "variant": worker.name, "seconds": worker.seconds}
    finally:
        for worker in workers:
            worker.end()


def crowds(folder: Path, pythons: Mapping[str, str]) -> Iterator[dict[str, object]]:
    """Let 1 to 16 callers ask at once."""
    for name, locked in CROWDS:
        worker = Worker.start(name, folder, pythons)
        worker.ask(workload="skewed-20")
        for callers in CALLERS:
            found = worker.ask(workload="skewed-20", callers=callers, locked=locked)
            yield {"variant": name, "callers": callers, "locked": locked, **found}
        worker.end()


def cold(folder: Path, pythons: Mapping[str, str], rounds: int = 3) -> Iterator[dict[str, object]]:
    """Time a fresh process from its start to the ranking of ten passages."""
    for name in COLD:
        seconds = []
        for _ in range(rounds):
            started = time.perf_counter()
            worker = Worker.start(name, folder, pythons)
            worker.ask(workload="skewed-10")
            seconds.append(time.perf_counter() - started)
            worker.end()
        yield {"variant": name, "seconds": seconds}


def main() -> None:
    """Make the checkpoints, run the plan, write the report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--python", required=True, help="interpreter of the peers' environment")
    parser.add_argument("--infinity", default="", help="interpreter of infinity's environment")
    parser.add_argument("--plan", choices=PLANS, default="full")
    parser.add_argument("--work", type=Path, default=HERE / "build", help="folder of checkpoints")
    parser.add_argument("--out", type=Path, default=HERE / "results")
    options = parser.parse_args()
    pythons = {"peers": options.python, "infinity": options.infinity}
    origins: dict[str, str] = {}
    rows: list[dict[str, object]] = []
    facts = {"machine": machine.describe(options.python), "weights": origins, "rows": rows}
    for geometry, load, names, rounds in PLANS[options.plan]:
        folder = options.work / geometry
        if not (folder / "origin.txt").is_file():
            command = [options.python, str(HERE / "checkpoint.py"), geometry, str(folder)]
            subprocess.run(command, check=True, capture_output=True)
        origins[geometry] = (folder / "origin.txt").read_text()
        present = tuple(name for name in names if name != "infinity" or options.infinity)
        print(f"{geometry} {load}: {len(present)} variants, {rounds} rounds", flush=True)
        rows += [
            {"geometry": geometry, "workload": load, **row}
            for row in throughput(folder, load, present, rounds, pythons)
        ]
        report.write(facts, options.out)
    facts["crowds"] = list(crowds(options.work / "MiniLM-L6", pythons))
    facts["cold"] = list(cold(options.work / "MiniLM-L6", pythons))
    report.write(facts, options.out)
    print(f"wrote {options.out}")


if __name__ == "__main__":
    main()
