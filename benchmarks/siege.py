"""What honest clients notice while others do their worst, each kind at once, on loopback.

    python benchmarks/siege.py --seconds 30

Four honest clients alone, then beside 200 silent connections, 50 slow readers, 100 clients that
leave, and 1,000 hostile bodies; then SIGTERM while the siege goes on. The attackers come from
other loopback addresses than the honest clients, and take turns on the processors with them and
the server, which counts against the server. Ends by itself; prints JSON and exits with 1 if a bound
does not hold.
"""

import argparse
import asyncio
import contextlib
import json
import os
import random
import signal
import socket
import statistics
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import httpx

CORPUS = Path(__file__).parent.parent / "examples" / "corpus" / "python-docs.jsonl"
PROGRAM = [sys.executable, "-m", "rerank_plugins.cli", "serve"]
ATTACK = [sys.executable, __file__]
HONEST, SILENT, SLOW, LEAVERS, HOSTILE = 4, 200, 50, 100, 1000
DEPTH = 20
OK = 200
HEAD = b"POST /v1/rerank HTTP/1.1\r\nhost: localhost\r\ncontent-length: %d\r\n\r\n"
BODIES = [
    b'{"query": "a", "documents": [' + b"0," * 500_000 + b"0]}",
    b'{"query": "a", "documents": [' + b'"a",' * 250_000 + b'"a"]}',
    b'{"query": "a", "documents": ' + b"[" * 100_000,
    b'{"x": [' + b"[]," * 300_000 + b'0], "query": "a", "documents": [1]}',
    b'{"query": "a"}',
    b"\xff" * 100_000,
]


@dataclass
class Seen:
    """What the honest clients and the prober saw.

    latencies, ready: milliseconds
    """

    latencies: list[float] = field(default_factory=list)
    ready: list[float] = field(default_factory=list)
    statuses: Counter[str] = field(default_factory=Counter)

    def p95(self) -> float:
        """Return the 95th percentile of the latencies."""
        return statistics.quantiles(self.latencies, n=20)[18]


async def honest(port: int, seconds: float, pause_s: float) -> Seen:
    """Ask as four patient clients do, and probe all the while."""
    rows = [json.loads(line) for line in CORPUS.read_text(encoding="utf-8").splitlines()]
    seen = Seen()
    until = time.perf_counter() + seconds

    async def client(seed: int) -> None:
        draw = random.Random(seed)
        while time.perf_counter() < until:
            body = {
                "query": draw.choice(rows)["title"],
                "documents": [row["text"] for row in draw.sample(rows, DEPTH)],
            }
            asked = time.perf_counter()
            await ask("POST", "/v1/rerank", body, seen.latencies, asked)
            await asyncio.sleep(pause_s)

    async def prober() -> None:
        while time.perf_counter() < until:
            await ask("GET", "/readyz", None, seen.ready, time.perf_counter())
            await asyncio.sleep(0.2)

    async def ask(method: str, path: str, body: object, into: list[float], asked: float) -> None:
        try:
            answer = await http.request(method, path, json=body)
        except httpx.TransportError as error:
            seen.statuses[type(error).__name__] += 1
            return
        seen.statuses[str(answer.status_code)] += 1
        if answer.status_code == OK:
            into.append((time.perf_counter() - asked) * 1e3)

    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=60.0) as http:
        await asyncio.gather(prober(), *(client(seed) for seed in range(HONEST)))
    return seen


class Siege:
    """Attacks of every kind at once, each from addresses of its own."""

    def __init__(self, port: int, seconds: float) -> None:
        self._port = port
        self._seconds = seconds
        self._few = asyncio.Semaphore(8)
        self.statuses: Counter[str] = Counter()

    async def run(self) -> None:
        """Attack until the time is over."""
        kinds = (
            (self.silent, SILENT),
            (self.slow, SLOW),
            (self.leaver, LEAVERS),
            (self.hostile, HOSTILE),
        )
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._seconds + 5.0):
                attacks = (kind(place) for kind, count in kinds for place in range(count))
                await asyncio.gather(*attacks)

    async def silent(self, place: int) -> None:
        """Connect and say nothing; again when the server has had enough."""
        while True:
            with contextlib.suppress(OSError):
                reader, writer = await self._connect(place)
                await reader.read()
                writer.close()
            await asyncio.sleep(0.5)

    async def slow(self, place: int) -> None:
        """Ask for a large answer and read a byte a second."""
        await asyncio.sleep(self._seconds / 2 * place / SLOW)
        documents = ["a" * 500] * 2000
        body = json.dumps({"query": "a", "documents": documents, "return_documents": True})
        with contextlib.suppress(OSError):
            reader, writer = await self._connect(place, limit=1)
            writer.write(HEAD % len(body) + body.encode())
            for _ in range(1000):
                await asyncio.sleep(1.0)
                if not await reader.read(1):
                    break
            writer.close()

    async def leaver(self, place: int) -> None:
        """Ask for much work and leave."""
        documents = [f"{word} b c d " * 100 for word in range(100)]
        body = json.dumps({"query": "a b", "documents": documents}).encode()
        await asyncio.sleep(self._seconds * place / LEAVERS)
        with contextlib.suppress(OSError):
            _, writer = await self._connect(place)
            writer.write(HEAD % len(body) + body)
            await asyncio.sleep(0.1)
            writer.transport.abort()

    async def hostile(self, place: int) -> None:
        """Send a body that is large and wrong."""
        await asyncio.sleep(self._seconds * place / HOSTILE)
        body = BODIES[place % len(BODIES)]
        async with self._few:
            try:
                reader, writer = await self._connect(place)
                writer.write(HEAD % len(body) + body)
                line = await reader.readline()
                writer.close()
                self.statuses[line[9:12].decode() or "closed"] += 1
            except OSError as error:
                self.statuses[type(error).__name__] += 1

    async def _connect(
        self, place: int, limit: int = 2**16
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        line = socket.socket()
        if limit == 1:
            line.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        line.bind((f"127.0.1.{1 + place % 100}", 0))
        line.setblocking(False)
        await asyncio.get_running_loop().sock_connect(line, ("127.0.0.1", self._port))
        return await asyncio.open_connection(sock=line, limit=limit)


async def measure(options: argparse.Namespace) -> dict[str, object]:
    """Measure alone, under siege, and the end of the server under siege."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    server = start([*PROGRAM, "--port", str(port), "--model", options.model])
    try:
        await ready(port)
        await honest(port, min(5.0, options.seconds), options.pause)
        alone = await honest(port, options.seconds, options.pause)
        before = resident_mb(server.pid)
        # In a process of its own: its work must not delay the honest clients in this one.
        attack = [*ATTACK, "--besiege", str(port), "--seconds", str(options.seconds)]
        siege = start(attack)
        under = await honest(port, options.seconds, options.pause)
        after = resident_mb(server.pid)
        server.send_signal(signal.SIGTERM)
        started = time.perf_counter()
        await asyncio.to_thread(server.wait, 60)
        drain_s = time.perf_counter() - started
        told, _ = await asyncio.to_thread(siege.communicate, timeout=60)
    finally:
        server.kill()
    hostile: Counter[str] = Counter(json.loads(told))
    statuses = alone.statuses + under.statuses
    return {
        "load_average": os.getloadavg()[0],
        "requests": [len(alone.latencies), len(under.latencies)],
        "p95_ms": [alone.p95(), under.p95()],
        "p95_ratio": under.p95() / alone.p95(),
        "rss_mb": [before, after],
        "rss_ratio": after / before,
        "honest": dict(statuses),
        "hostile": dict(hostile),
        "server_errors": sum(
            count for status, count in (statuses + hostile).items() if status.startswith("5")
        ),
        "readyz_most_ms": max(under.ready),
        "drain_s": drain_s,
    }


def start(program: list[str]) -> subprocess.Popen[bytes]:
    """Start a process."""
    return subprocess.Popen(program, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)


def besiege(port: int, seconds: float) -> None:
    """Attack, and print the statuses that hostile bodies got."""
    siege = Siege(port, seconds)
    asyncio.run(siege.run())
    print(json.dumps(siege.statuses))


async def ready(port: int) -> None:
    """Wait until the server is warm."""
    async with httpx.AsyncClient() as http:
        for _ in range(600):
            with contextlib.suppress(httpx.TransportError):
                if (await http.get(f"http://127.0.0.1:{port}/readyz")).status_code == OK:
                    return
            await asyncio.sleep(0.1)
    raise TimeoutError(port)


def resident_mb(pid: int) -> float:
    """Return a process's resident memory."""
    status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    return int(status.split("VmRSS:")[1].split()[0]) / 1024


def broken(facts: dict[str, object]) -> list[str]:
    """Return the bounds that do not hold."""
    most = {
        "p95_ratio": 1.5,
        "rss_ratio": 1.15,
        "server_errors": 0,
        "readyz_most_ms": 1000.0,
        "drain_s": 5.0,
    }
    return [name for name, bound in most.items() if float(str(facts[name])) > bound]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--pause", type=float, default=0.1, help="of an honest client, seconds")
    parser.add_argument("--model", default="embedded")
    parser.add_argument("--besiege", type=int, metavar="PORT", help="only attack a server")
    given = parser.parse_args()
    if given.besiege is not None:
        besiege(given.besiege, given.seconds)
        sys.exit()
    found = asyncio.run(measure(given))
    print(json.dumps({**found, "broken": broken(found)}, indent=1))
    sys.exit(bool(broken(found)))
