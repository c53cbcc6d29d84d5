"""Where the time of a request goes, and how near its matrix products are to the best there is.

python floor.py WORK: a folder of checkpoints as run.py makes it. In turns, requests run as always,
their batches run under ONNX Runtime's profiler, and every product by stored weights that occurs in
them runs alone, again and again on operands in the cache; each time in as many threads as there are
workers. All are sums of wall-clock time: other programs inflate them alike, and shares stay true.
"""

import contextlib
import json
import math
import queue
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from onnx import TensorProto, helper, numpy_helper
from text import workload

sys.path.insert(0, str(Path(__file__).parent.parent))
from rerank_plugins import load
from rerank_plugins.scoring.onnx import session
from rerank_plugins.scoring.onnx.graph import cache
from rerank_plugins.scoring.onnx.graph.prepare import open_rewritten
from rerank_plugins.scoring.runtime.ort import onnxruntime
from rerank_plugins.scoring.text.tokenizer import PairArrays

# Weights, passages, and how many draws of their lengths.
CASES = (
    ("MiniLM-L6", "skewed-10", 5),
    ("MiniLM-L6", "skewed-100", 1),
    ("MiniLM-L6", "uniform256-30", 1),
    ("base", "skewed-10", 2),
)
ROUNDS = 5
KINDS = {"Gelu": "GELU", "LayerNormalization": "norms and sums", "Add": "norms and sums"}
PARTS = (
    "products",
    "attention besides its product",
    "GELU",
    "norms and sums",
    "other operators",
    "between operators and batches",
    "tokenising, before and after",
    "idle at the end",
)
# What the profiler calls a whole run of a graph.
RUN = "model_run"
# Rows, inner size and columns of a product by stored weights; None elsewhere.
Size = tuple[int, int, int] | None
Feeds = Mapping[str, np.ndarray]


class Watched:
    """A graph that notes who ran what, from when to when."""

    def __init__(self, graph: session.Graph) -> None:
        self.graph = graph
        self.runs: list[tuple[int, float, float, PairArrays]] = []

    def run(self, arrays: PairArrays) -> np.ndarray:
        """Run a batch."""
        started = time.perf_counter()
        columns = self.graph.run(arrays)
        self.runs.append((threading.get_ident(), started, time.perf_counter(), arrays))
        return columns


def request(watched: Watched, rerank: Callable[[], object], workers: int) -> Counter[str]:
    """Split the worker seconds of a request ("whole"): inside the graph, and where workers wait.

    "s" are its seconds, "n" counts requests.
    """
    watched.runs.clear()
    began = time.perf_counter()
    rerank()
    whole = time.perf_counter() - began
    first = min(start for _, start, _, _ in watched.runs)
    last = max(end for _, _, end, _ in watched.runs)
    ends = {thread: end for thread, _, end, _ in watched.runs}
    graph = sum(end - start for _, start, end, _ in watched.runs)
    idle = sum(last - end for end in ends.values())
    parts = {"whole": whole * workers, "graph": graph, "idle at the end": idle, "s": whole, "n": 1}
    outside = (whole - (last - first)) * workers
    parts["tokenising, before and after"] = outside
    parts["between operators and batches"] = whole * workers - outside - idle - graph
    return Counter(parts)


class Profiled:
    """A session under ONNX Runtime's profiler."""

    def __init__(self, graph: str | bytes) -> None:
        self._folder = TemporaryDirectory()
        ort = onnxruntime()
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        options.enable_profiling = True
        options.profile_file_prefix = f"{self._folder.name}/profile"
        provider = "CPUExecutionProvider"
        left_out = list(session.UNHELPFUL[provider])
        self.session = ort.InferenceSession(
            graph, options, providers=[provider], disabled_optimizers=left_out
        )
        self.inputs = [one.name for one in self.session.get_inputs()]

    def operators(self) -> dict[tuple[str, Size], tuple[int, float]]:
        """Count and time, in seconds, each kind of operator and size of product; ends profiling."""
        events = json.loads(Path(self.session.end_profiling()).read_text())
        self._folder.cleanup()
        found: dict[tuple[str, Size], tuple[int, float]] = {}
        for event in events:
            kind, size = event["name"], None
            if kind.endswith("_kernel_time"):
                kind, size = event["args"]["op_name"], _size(event["args"])
            elif kind != RUN:
                continue
            count, seconds = found.get((kind, size), (0, 0.0))
            found[kind, size] = (count + 1, seconds + event["dur"] / 1e6)
        return found


def _size(about: Mapping[str, object]) -> Size:
    sides = about["input_type_shape"] + about["output_type_shape"]
    first, *others, last = (next(iter(one.values())) for one in sides)
    # Stored weights are packed beforehand: the profiler does not list them as an input.
    if about["op_name"] == "MatMul" and not others:
        return math.prod(first[:-1]), first[-1], last[-1]
    if about["op_name"] == "Attention":
        return math.prod(first[:-1]), first[-1], others[0][0]
    return None


def product(inner: int, columns: int) -> Profiled:
    """Open a graph of one product, for any number of rows."""
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "product",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["rows", inner])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["rows", columns])],
        [numpy_helper.from_array(np.ones((inner, columns), np.float32), "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    return Profiled(model.SerializeToString())


def serve(jobs: Sequence[tuple[Profiled, Feeds, int]], threads: int) -> None:
    """Run each job so many times, in so many threads at once."""
    waiting: queue.SimpleQueue[tuple[Profiled, Feeds, int]] = queue.SimpleQueue()
    for job in jobs:
        waiting.put(job)

    def work() -> None:
        with contextlib.suppress(queue.Empty):
            while True:
                opened, feeds, times = waiting.get_nowait()
                for _ in range(times):
                    opened.session.run(None, feeds)

    crew = [threading.Thread(target=work) for _ in range(threads)]
    for one in crew:
        one.start()
    for one in crew:
        one.join()


def measure(model: Path, name: str, draw: int) -> Counter[str]:
    """Split the worker seconds of a workload; "alone" is what its products take by themselves."""
    stage = {"scorer": str(model), "long": "truncate", "token_cache_bytes": 0}
    asked = workload(name, draw)
    reranker = load({"stages": [stage]})
    reranker.warm_up()
    scorer = reranker.setup.stages[0].scorer
    workers = scorer.throughput.workers
    watched = scorer.graph = Watched(scorer.graph)
    key = open_rewritten(model, tuple, folder=cache.usable()).key
    (kept,) = cache.usable().glob(f"{key}.*.onnx")
    trial, whole = (Profiled(str(kept)) for _ in range(2))

    def rerank() -> Counter[str]:
        return request(watched, lambda: reranker.rerank(asked.query, asked.passages), workers)

    def replay(opened: Profiled) -> None:
        feeds = [{one: getattr(run[3], one) for one in opened.inputs} for run in watched.runs]
        serve([(opened, one, 1) for one in feeds], workers)

    rerank()
    replay(trial)
    counts = {size: count for (_, size), (count, _) in trial.operators().items() if size}
    kernels = {shape: product(*shape) for shape in {size[1:] for size in counts}}
    jobs = [
        (kernels[size[1:]], {"x": np.ones(size[:2], np.float32)}, count)
        for size, count in counts.items()
    ]
    total: Counter[str] = Counter()
    for _ in range(ROUNDS):
        total.update(rerank())
        replay(whole)
        serve(jobs, workers)
    reranker.close()
    alone = [one for kernel in kernels.values() for one in kernel.operators().items()]
    total.update(
        split(
            whole.operators(),
            {size: seconds for (_, size), (_, seconds) in alone},
            graph_s=total.pop("graph"),
        )
    )
    return total


def split(
    operators: dict[tuple[str, Size], tuple[int, float]],
    alone: Mapping[Size, float],
    *,
    graph_s: float,
) -> Counter[str]:
    """Share `graph_s` out to the operators by what the profiler saw.

    An attention operator holds a product that cannot be told apart: as fast as it is alone.
    """
    _, run_s = operators.pop((RUN, None))
    parts: Counter[str] = Counter({"between operators and batches": graph_s})
    for (kind, size), (count, profiled_s) in operators.items():
        seconds = profiled_s * graph_s / run_s
        parts["between operators and batches"] -= seconds
        if size is None:
            parts[KINDS.get(kind, "other operators")] += seconds
            continue
        held = alone[size] if kind == "Attention" else seconds
        parts["products"] += held
        parts["attention besides its product"] += seconds - held
        parts["alone"] += alone[size]
        parts["gflop"] += 2e-9 * count * math.prod(size)
    return parts


def main() -> None:
    """Print a table: a column per workload, a row per part."""
    found: dict[str, Counter[str]] = {}
    for weights, name, draws in CASES:
        model = Path(sys.argv[1]) / weights / "onnx" / "model.onnx"
        every = [measure(model, name, draw) for draw in range(draws)]
        found[f"{weights}, {name}"] = sum(every, Counter())
    print("| part |", " | ".join(found), "|")
    print("|---" * (len(found) + 1) + "|")

    def row(title: str, cells: Iterator[str]) -> None:
        print(f"| {title} |", " | ".join(cells), "|")

    row("ms a request", (f"{1e3 * one['s'] / one['n']:.0f}" for one in found.values()))
    for part in PARTS:
        row(part, (f"{one[part] / one['whole']:.1%}" for one in found.values()))
    ratios = (
        ("products, alone over in the request", "alone", "products"),
        ("request over products alone", "whole", "alone"),
        ("GFLOP/s of a worker, products alone", "gflop", "alone"),
    )
    for title, over, under in ratios:
        row(title, (f"{one[over] / one[under]:.3g}" for one in found.values()))


if __name__ == "__main__":
    main()
