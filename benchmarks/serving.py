"""What the server costs over the engine in process, and how it behaves under too much load.

    python benchmarks/serving.py --seconds 60

Closed loop on loopback, rounds of in-process and server interleaved; then three times the callers
that the queue takes. Prints JSON. The client shares the machine's cores with the server, which
counts against the server.
"""

import argparse
import asyncio
import json
import os
import random
import signal
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import httpx

from rerank_plugins import Reranker

CORPUS = Path(__file__).parent.parent / "examples" / "corpus" / "python-docs.jsonl"
OK = 200
Call = Callable[[str, list[str]], Awaitable[int]]


@dataclass(frozen=True)
class Load:
    """What one closed loop saw; latencies in milliseconds."""

    requests: int
    per_s: float
    p50_ms: float
    p95_ms: float
    p99_ms: float
    statuses: dict[str, int]


async def closed_loop(call: Call, callers: int, seconds: float, depth: int) -> Load:
    """Let `callers` ask one after the other until the time is over."""
    rows = [json.loads(line) for line in CORPUS.read_text(encoding="utf-8").splitlines()]
    latencies: list[float] = []
    statuses: dict[str, int] = {}
    started = time.perf_counter()

    async def caller(seed: int) -> None:
        draw = random.Random(seed)
        while time.perf_counter() - started < seconds:
            query = draw.choice(rows)["title"]
            texts = [row["text"] for row in draw.sample(rows, depth)]
            asked = time.perf_counter()
            status = str(await call(query, texts))
            statuses[status] = statuses.get(status, 0) + 1
            if status == "200":
                latencies.append((time.perf_counter() - asked) * 1e3)
            else:
                await asyncio.sleep(0.05)

    await asyncio.gather(*(caller(seed) for seed in range(callers)))
    wall_s = time.perf_counter() - started
    cuts = statistics.quantiles(latencies, n=100)
    return Load(
        len(latencies), len(latencies) / wall_s, cuts[49], cuts[94], cuts[98], dict(statuses)
    )


def in_process(reranker: Reranker) -> Call:
    """Ask the engine itself."""

    async def call(query: str, texts: list[str]) -> int:
        await reranker.arerank(query, texts)
        return OK

    return call


def over_http(client: httpx.AsyncClient, url: str) -> Call:
    """Ask the server as a Cohere client does."""

    async def call(query: str, texts: list[str]) -> int:
        try:
            answer = await client.post(url, json={"query": query, "documents": texts})
        except httpx.TransportError as error:
            return {"ReadTimeout": 598}.get(type(error).__name__, 599)
        return answer.status_code

    return call


async def measure(options: argparse.Namespace) -> dict[str, object]:
    """Run the rounds and the overload."""
    facts: dict[str, object] = {"cores": os.cpu_count(), "depth": options.depth}
    port = free_port()
    program = [sys.executable, "-m", "rerank_plugins.cli", "serve", "--port", str(port)]
    url = f"http://127.0.0.1:{port}"
    limits = httpx.Limits(max_connections=None)
    rounds: dict[str, list[Load]] = {"in_process": [], "server": []}
    for _ in range(options.rounds):
        with Reranker() as reranker:
            await asyncio.to_thread(reranker.warm_up)
            mine = closed_loop(
                in_process(reranker), options.callers, options.seconds, options.depth
            )
            rounds["in_process"].append(await mine)
        server = start([*program, "--max-requests", str(options.callers), "--client-share", "1"])
        async with httpx.AsyncClient(timeout=120.0, limits=limits) as client:
            await ready(client, url)
            call = over_http(client, f"{url}/v2/rerank")
            rounds["server"].append(
                await closed_loop(call, options.callers, options.seconds, options.depth)
            )
            facts["overload"] = asdict(
                await closed_loop(call, options.callers * 3, options.seconds / 3, options.depth)
            )
            asked = time.perf_counter()
            facts["first_after_overload"] = await call("red fox", ["a red fox"])
            facts["recovery_s"] = time.perf_counter() - asked
        server.send_signal(signal.SIGTERM)
        server.wait(timeout=60)
    facts |= {name: [asdict(one) for one in loads] for name, loads in rounds.items()}
    pairs = zip(rounds["server"], rounds["in_process"], strict=True)
    facts["throughput_ratio"] = statistics.median(one.per_s / other.per_s for one, other in pairs)
    return facts


def start(program: list[str]) -> subprocess.Popen[bytes]:
    """Start the server's process."""
    return subprocess.Popen(program, stderr=subprocess.DEVNULL)


async def ready(client: httpx.AsyncClient, url: str) -> None:
    """Wait until the server is warm."""
    for _ in range(600):
        try:
            if (await client.get(f"{url}/readyz")).status_code == OK:
                return
        except httpx.TransportError:
            pass
        await asyncio.sleep(0.1)
    raise TimeoutError(url)


def free_port() -> int:
    """Find a port nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--callers", type=int, default=32)
    parser.add_argument("--depth", type=int, default=40)
    print(json.dumps(asyncio.run(measure(parser.parse_args())), indent=1))
