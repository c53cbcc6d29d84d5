"""A fresh process gets to its first ranking without what an earlier one did and wrote down."""

import json
import os
import subprocess
import sys
from pathlib import Path

START = """
import json, sys
import onnxruntime

class Counted(onnxruntime.InferenceSession):
    opened = 0

    def __init__(self, *given, **named):
        Counted.opened += 1
        super().__init__(*given, **named)

onnxruntime.InferenceSession = Counted
from rerank_plugins import Reranker

with Reranker() as reranker:
    reranker.warm_up()
    result = reranker.rerank("red fox", ["a red fox", "a blue hen"])
print(json.dumps([result.order, Counted.opened, list(sys.modules)]))
"""
# What only the first start needs, or nobody.
UNUSED = {"onnx", "google.protobuf", "opentelemetry.sdk", "huggingface_hub", "httpx", "asyncio"}


def start(cache: Path) -> tuple[list[int], int, set[str]]:
    """Rerank in a fresh process; give the order, the sessions opened and the modules loaded."""
    folders = {name: str(cache) for name in ("XDG_CACHE_HOME", "LOCALAPPDATA", "HOME")}
    done = subprocess.run(
        [sys.executable, "-c", START],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parent.parent,
        env={**os.environ, **folders},
        timeout=300,
    )
    order, opened, loaded = json.loads(done.stdout)
    return order, opened, set(loaded)


def test_a_later_start_opens_one_session_and_rewrites_nothing(tmp_path):
    """The first start opens the file's graph to compare with; the next takes what was proved."""
    first, opened, loaded = start(tmp_path)
    assert opened == 2
    assert "onnx" in loaded
    later, opened, loaded = start(tmp_path)
    assert later == first
    assert opened == 1
    assert loaded & UNUSED == set()
