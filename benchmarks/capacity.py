"""Whether the simulated queue of `rerank-plugins capacity` foresees a real server.

    python benchmarks/capacity.py --seconds 60

Requests reach one server on loopback at random times (Poisson), at several shares of what it can
do; beside each measured percentile stands the simulated one. Writes capacity.json, and the plot of
the documentation with --plot. The client shares the machine's cores with the server.
"""

import argparse
import asyncio
import json
import os
import random
import signal
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import httpx
import serving

from rerank_plugins.evaluation.cost import summarise
from rerank_plugins.evaluation.queueing import sojourn_times

HERE = Path(__file__).parent
LOADS = (0.3, 0.5, 0.7, 0.8, 0.9)


@dataclass(frozen=True)
class Row:
    """One load: what was foreseen and what came, 50th and 95th percentiles in milliseconds."""

    load: float
    per_s: float
    requests: int
    errors: int
    foreseen_p50_ms: float
    measured_p50_ms: float
    foreseen_p95_ms: float
    measured_p95_ms: float
    # What the same number of arrivals gives by chance: the middle 90 % of simulated runs.
    foreseen_p95_range_ms: tuple[float, float]


async def one_by_one(
    call: serving.Call, bodies: Iterator[tuple[str, list[str]]], n: int
) -> list[float]:
    """Time `n` requests, each alone, in seconds."""
    times = []
    for _ in range(n):
        asked = time.perf_counter()
        await call(*next(bodies))
        times.append(time.perf_counter() - asked)
    return times


async def open_loop(
    call: serving.Call, bodies: Iterator[tuple[str, list[str]]], per_s: float, seconds: float
) -> tuple[list[float], int]:
    """Send requests at random times whether or not others were answered; times and errors."""
    draw = random.Random(0)
    times: list[float] = []
    errors = 0

    async def ask() -> None:
        nonlocal errors
        asked = time.perf_counter()
        status = await call(*next(bodies))
        times.append(time.perf_counter() - asked)
        errors += status != serving.OK

    ends = time.perf_counter() + seconds
    async with asyncio.TaskGroup() as under_way:
        while time.perf_counter() < ends:
            await asyncio.sleep(draw.expovariate(per_s))
            under_way.create_task(ask())
    return times, errors


def bodies(depth: int) -> Iterator[tuple[str, list[str]]]:
    """Return queries and passages of the documentation corpus, drawn for ever."""
    rows = [json.loads(line) for line in serving.CORPUS.read_text(encoding="utf-8").splitlines()]
    draw = random.Random(1)
    while True:
        yield draw.choice(rows)["title"], [row["text"] for row in draw.sample(rows, depth)]


def row(load: float, service: Sequence[float], measured: tuple[list[float], int]) -> Row:
    """Put a measured load beside its simulation."""
    times, errors = measured
    per_s = load / statistics.fmean(service)
    foreseen = summarise(list(sojourn_times(service, per_s, servers=1, seed=0)))
    seen = summarise(times)
    assert foreseen is not None
    assert seen is not None
    chance = sorted(
        summarise(
            list(sojourn_times(service, per_s, servers=1, seed=1 + i, arrivals=len(times)))
        ).p95_s
        for i in range(200)
    )
    return Row(
        load,
        per_s,
        len(times),
        errors,
        *(1e3 * one for one in (foreseen.p50_s, seen.p50_s, foreseen.p95_s, seen.p95_s)),
        (1e3 * chance[10], 1e3 * chance[189]),
    )


async def measure(options: argparse.Namespace) -> dict[str, object]:
    """Time single requests, then every load."""
    port = serving.free_port()
    program = [sys.executable, "-m", "rerank_plugins.cli", "serve", "--port", str(port)]
    server = serving.start(program)
    url = f"http://127.0.0.1:{port}"
    texts = bodies(options.depth)
    rows = []
    try:
        limits = httpx.Limits(max_connections=None)
        async with httpx.AsyncClient(timeout=120.0, limits=limits) as client:
            await serving.ready(client, url)
            call = serving.over_http(client, f"{url}/v2/rerank")
            await one_by_one(call, texts, 5)
            service = await one_by_one(call, texts, options.single)
            for load in LOADS:
                per_s = load / statistics.fmean(service)
                rows.append(
                    row(load, service, await open_loop(call, texts, per_s, options.seconds))
                )
                print(json.dumps(asdict(rows[-1])), file=sys.stderr)
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait(timeout=60)
    return {
        "cores": os.cpu_count(),
        "depth": options.depth,
        "seconds": options.seconds,
        "service": asdict(summarise(service)),
        "pairs_per_s": options.depth / statistics.fmean(service),
        "rows": [asdict(one) for one in rows],
    }


def draw(facts: dict[str, object], path: Path) -> None:
    """Draw foreseen and measured percentiles over the load."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.0, 4.0), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    rows = facts["rows"]
    loads = [one["load"] for one in rows]
    low, high = zip(*(one["foreseen_p95_range_ms"] for one in rows), strict=True)
    axes.fill_between(loads, low, high, alpha=0.2, label="p95 by chance, middle 90 %")
    for name, colour in {"p50": "tab:green", "p95": "tab:blue"}.items():
        axes.plot(
            loads,
            [one[f"foreseen_{name}_ms"] for one in rows],
            color=colour,
            label=f"{name} simulated",
        )
        axes.plot(
            loads,
            [one[f"measured_{name}_ms"] for one in rows],
            "o",
            color=colour,
            label=f"{name} measured",
        )
    axes.set_yscale("log")
    axes.set_xlabel("load: requests a second / what the server can do")
    axes.set_ylabel("milliseconds")
    axes.legend(fontsize=8)
    figure.savefig(path)


def main() -> None:
    """Measure, write, draw."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0, help="of each load")
    parser.add_argument("--single", type=int, default=60, help="requests timed alone")
    parser.add_argument("--depth", type=int, default=40)
    parser.add_argument("--out", type=Path, default=HERE / "results")
    parser.add_argument("--plot", type=Path)
    options = parser.parse_args()
    facts = asyncio.run(measure(options))
    text = json.dumps(facts, indent=1) + "\n"
    (options.out / "capacity.json").write_text(text, encoding="utf-8")
    print(text)
    if options.plot:
        draw(facts, options.plot)


if __name__ == "__main__":
    main()
