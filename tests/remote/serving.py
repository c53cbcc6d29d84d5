"""Remote scorers against the fake server, for all tests of this folder."""

import atexit
import functools
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from rerank_plugins import Policy, Reranker, Stage
from rerank_plugins.remote.auth import Key
from rerank_plugins.remote.options import RemoteOptions
from rerank_plugins.remote.payload import ReadingOptions
from rerank_plugins.remote.resilience import BreakerOptions
from rerank_plugins.remote.scorer import RemoteScorer
from rerank_plugins.scoring.lexical import LexicalScorer
from rerank_plugins.testing import FakeRerankServer
from rerank_plugins.testing.dialects import DIALECTS
from tests import tiny

SECRET = "sk-planted-9f3b7c"
QUERY = "red fox hunts at night"
PASSAGES = [
    "the blue hen sleeps",
    "a red fox hunts at night in winter",
    "a red fox rests",
    "night falls on the quiet town",
    "nothing of the kind",
]
BEST_FIRST = 1
PATIENT = BreakerOptions(failures=10_000)

PROVIDERS = sorted(DIALECTS)


def planted() -> Key:
    """Return a key that must never be seen again."""
    return Key("the test's own key", lambda: SECRET)


def options(server: FakeRerankServer, provider: str, **changes: object) -> RemoteOptions:
    """Return options that lead to `server`."""
    common = {
        "model": "some-model",
        "base_url": server.url,
        "project": "p",
        "location": "eu",
        "key": None if provider.startswith("bedrock") else planted(),
        "breaker": PATIENT,
    }
    if provider == "triton":
        common["reading"] = ReadingOptions(tokenizer_folder())
    return RemoteOptions(provider, **{**common, **changes})


@functools.cache
def tokenizer_folder() -> Path:
    """Write the tiny model once, whose tokenizer reads for destinations that take tensors."""
    home = tempfile.mkdtemp(prefix="rerank-tiny-")
    atexit.register(shutil.rmtree, home, ignore_errors=True)
    return tiny.build(Path(home))


@contextmanager
def remote_first(
    server: FakeRerankServer, provider: str, *, fallback: bool = True, **changes: object
) -> Iterator[Reranker]:
    """Return a reranker that asks `server`, with word overlap as its fallback."""
    stages = [Stage(RemoteScorer(options(server, provider, **changes)))]
    if fallback:
        stages.append(Stage(LexicalScorer(), when="fallback"))
    with Reranker(stages=stages, policy=Policy(("on-prem",))) as reranker:
        reranker.warm_up()
        yield reranker


@pytest.fixture(autouse=True)
def aws_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    """Return the signer something to sign with."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
