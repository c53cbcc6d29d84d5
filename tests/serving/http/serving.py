"""Start real server processes on loopback and wait until they are ready."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass

import httpx

_PROGRAM = (
    "import json, sys\n"
    "from rerank_plugins.serving.http.run import ServeOptions, serve\n"
    "if sys.argv[2]:\n"
    "    import resource\n"
    "    resource.setrlimit(resource.RLIMIT_NOFILE, (int(sys.argv[2]),) * 2)\n"
    "serve(ServeOptions(**json.loads(sys.argv[1])))\n"
)


@dataclass(frozen=True)
class Server:
    """A running server: its address and its process."""

    url: str
    process: subprocess.Popen[str]

    def terminate(self) -> None:
        """Ask for a graceful end."""
        self.process.send_signal(signal.SIGTERM)


@contextlib.contextmanager
def running(
    *,
    model: str = "lexical",
    environment: dict[str, str] | None = None,
    files: int | None = None,
    **options: object,
) -> Iterator[Server]:
    """Serve `model` on a free port until the block ends, under a limit on open files."""
    port = _free_port()
    arguments = json.dumps({"port": port, "model": model, **options})
    process = subprocess.Popen(
        [sys.executable, "-c", _PROGRAM, arguments, str(files or "")],
        env=os.environ | (environment or {}),
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        _wait_until_ready(f"http://127.0.0.1:{port}", process)
        yield Server(f"http://127.0.0.1:{port}", process)
    finally:
        process.terminate()
        try:
            process.communicate(timeout=20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()


def _wait_until_ready(url: str, process: subprocess.Popen[str], timeout_s: float = 60.0) -> None:
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise RuntimeError(f"the server ended: {process.communicate()[1]}")
        with contextlib.suppress(httpx.TransportError):
            if httpx.get(f"{url}/readyz", timeout=5.0).status_code == 200:
                return
        time.sleep(0.1)
    raise TimeoutError(f"{url} was not ready within {timeout_s} s")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
