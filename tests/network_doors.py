"""Take one of the package's doors, and stay a while: network_doors.py DOOR STAYS_S FOLDER."""

import contextlib
import ctypes
import json
import runpy
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import ModuleType

QUERY, PASSAGES = "red fox", ["a hen in the yard", "the red fox sleeps"]
EXAMPLES = Path(__file__).parent.parent / "examples"


def stay() -> None:
    """Give libraries the time that they take before they report."""
    time.sleep(float(sys.argv[2]))


def library() -> None:
    """Rerank in this process."""
    from rerank_plugins import Reranker

    assert Reranker().rerank(QUERY, PASSAGES).order == (1, 0)


def command(*arguments: str) -> None:
    """Run a command of the command line in this process."""
    from rerank_plugins.cli import main

    try:
        code = main(arguments)
    except SystemExit as end:
        code = end.code
    assert not code, code


def run() -> None:
    """Rerank a file."""
    file = Path(sys.argv[3]) / "passages.txt"
    file.write_text("\n".join(PASSAGES))
    command("run", "--query", QUERY, "--docs", str(file))


def ask(port: int, process: "subprocess.Popen[bytes] | None" = None) -> None:
    """Post a request, again until the server is there."""
    body = json.dumps({"query": QUERY, "documents": PASSAGES}).encode()
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/v1/rerank", body, {"content-type": "application/json"}
    )
    until = time.monotonic() + 120
    while True:
        try:
            results = json.load(urllib.request.urlopen(request, timeout=60))["results"]
        except OSError:
            assert time.monotonic() < until
            assert process is None or process.poll() is None
            time.sleep(0.5)
        else:
            assert results[0]["index"] == 1
            return


def hub() -> None:
    """Open a model that is not here."""
    from rerank_plugins import Reranker, RerankError

    try:
        Reranker("cross-encoder/not-here").warm_up()
    except RerankError:
        return
    raise AssertionError("there is no such model")


def serve() -> None:
    """Serve with two worker processes."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    options = ("serve", "--port", str(port), "--workers", "2")
    server = subprocess.Popen([sys.executable, "-m", "rerank_plugins.cli", *options])
    try:
        ask(port, server)
        stay()
    finally:
        server.terminate()
        server.wait(60)


def ray() -> None:
    """Serve on a Ray cluster of this machine, and rerank a dataset."""
    from rerank_plugins.ray_app import RayOptions, app, rerank_dataset

    import ray  # isort: skip - as a program does that follows docs/serving.md
    from ray import serve

    ray.init(num_cpus=3, logging_level="ERROR", log_to_driver=False)
    serve.run(app(RayOptions(open=True)), name="rerank", route_prefix="/")
    ask(8000)
    rows = ray.data.from_items([{"id": "1", "query": QUERY, "passages": PASSAGES}])
    (row,) = rerank_dataset(rows, Path(sys.argv[3]) / "dataset").take_all()
    assert list(row["order"]) == [1, 0]
    stay()
    serve.shutdown()
    ray.shutdown()


def control() -> None:
    """Do what a watch has to see."""
    attempts = (
        (socket.getaddrinfo, ("python.invalid", 443)),
        (socket.create_connection, (("203.0.113.9", 443), 0.2)),
    )
    for action, given in attempts:
        with contextlib.suppress(OSError):
            action(*given)
    if sys.platform == "linux":
        ctypes.CDLL(None).gethostbyname(b"native.invalid")


def example(name: str) -> None:
    """Run an example; its module stays alive, as a program's does."""
    sys.modules["example"] = module = ModuleType("example")
    vars(module).update(runpy.run_path(str(EXAMPLES / f"{name}.py")))


DOORS: dict[str, Callable[[], None]] = {
    "library": library,
    "run": run,
    "doctor": partial(command, "doctor"),
    "hub": hub,
    "serve": serve,
    "ray": ray,
    "control": control,
    "demo": partial(example, "demo"),
    "haystack": partial(example, "rerank_in_haystack"),
    "langchain": partial(example, "rerank_in_langchain"),
    "llama-index": partial(example, "rerank_in_llama_index"),
}

if __name__ == "__main__":
    DOORS[sys.argv[1]]()
    if sys.argv[1] not in {"serve", "ray"}:  # these stay while they serve
        stay()
