"""Specification of `rerank_plugins.serving.shared_engine`."""

import asyncio
import copy
import gc
import json
import os
import pickle
import socket
import subprocess
import sys
import time
import weakref

import pytest

from rerank_plugins import Candidate
from rerank_plugins.errors import ConfigError, ModelError, ModelUnavailable
from rerank_plugins.serving.engines import Engines, read
from rerank_plugins.serving.shared_engine import ComponentOptions, SharedReranker, shared_reranker
from tests import tiny

LEXICAL = {"stages": [{"scorer": "lexical"}]}
CANDIDATES = [Candidate("a blue hen"), Candidate("a red fox")]


def test_options_become_settings():
    """Only what was set is written, so that everything else keeps its default."""
    assert ComponentOptions().source() == {"stages": [{"scorer": "embedded"}]}
    options = ComponentOptions(
        model="m", revision="r", local_files_only=True, depth=5, prior_weight=0.0
    )
    assert options.source() == {
        "stages": [{"scorer": "m", "revision": "r", "local_files_only": True}],
        "selection": {"depth": 5},
        "fusion": {"prior_weight": 0.0},
    }


@pytest.mark.parametrize("option", [{"model": "m"}, {"depth": 3}, {"max_tokens": 9}])
def test_a_config_stands_alone(option):
    """A config and an option that it could hold are refused together, by name."""
    with pytest.raises(ValueError, match=next(iter(option))):
        ComponentOptions(config=LEXICAL, **option).source()
    assert ComponentOptions(config=LEXICAL).source() == LEXICAL


def test_engines_are_shared_by_meaning():
    """Settings that say the same share an engine, however they are written."""
    one = SharedReranker(LEXICAL)
    two = SharedReranker({**LEXICAL, "strict": False})
    other = SharedReranker({**LEXICAL, "strict": True})
    assert one.engine() is two.engine() is one.engine()
    assert other.engine() is not one.engine()


def test_an_engine_ends_with_its_last_holder():
    """Closing one of two keeps the engine; closing both ends its worker threads."""
    one, two = SharedReranker({**LEXICAL, "selection": {"depth": 7}}), None
    two = copy.copy(one)
    threads = two.engine()._scheduler._threads
    assert one.engine() is two.engine()
    one.close()
    assert all(thread.is_alive() for thread in threads)
    two.close()
    gc.collect()
    for thread in threads:
        thread.join(timeout=5.0)
    assert not any(thread.is_alive() for thread in threads)
    assert [hit.index for hit in one.rerank("red fox", CANDIDATES)] == [1, 0]


def test_it_can_be_pickled_and_copied():
    """What comes back names the same settings and works."""
    shared = SharedReranker(LEXICAL)
    shared.engine()
    for again in (pickle.loads(pickle.dumps(shared)), copy.deepcopy(shared)):
        assert again.source == LEXICAL
        assert [hit.index for hit in again.rerank("red fox", CANDIDATES)] == [1, 0]


def test_a_component_keeps_its_engine_until_its_fields_change():
    """Every field counts: none may be changed without effect."""
    held = shared_reranker(ComponentOptions())
    assert shared_reranker(ComponentOptions(), held) is held
    changes = {
        "model": "m",
        "max_tokens": 9,
        "precision": "int8",
        "provider": "cuda",
        "revision": "r",
        "local_files_only": True,
        "token_env": "TOKEN",
        "depth": 3,
        "prior_weight": 0.5,
    }
    for name, value in changes.items():
        assert str(value) in str(shared_reranker(ComponentOptions(**{name: value}), held).source)
    by_file = ComponentOptions(config="rerank.toml")
    assert shared_reranker(by_file, held).source == "rerank.toml"


def test_the_model_has_a_name_before_it_is_loaded():
    """Events that start a reranking need a name at once."""
    assert SharedReranker(LEXICAL).model == "lexical"
    assert SharedReranker("rerank.toml").model == "rerank.toml"
    assert SharedReranker({}).model == "embedded"
    two = {"stages": [{"scorer": "lexical", "keep": 3}, {}]}
    assert SharedReranker(two).model == "lexical > embedded"


LOST = {"stages": [{"scorer": "no/such-model", "local_files_only": True}]}
NOWHERE = {"stages": [{"scorer": "/no/such.onnx"}]}


def test_a_config_that_is_strict_raises_for_a_lost_model():
    """Strictness written in a config counts even before its model could be loaded."""
    assert SharedReranker(LOST).rerank("red fox", CANDIDATES).degraded
    with pytest.raises(ModelUnavailable):
        SharedReranker({**LOST, "strict": True}).rerank("red fox", CANDIDATES)
    assert SharedReranker({**LOST, "strict": True}).rerank("q", CANDIDATES, strict=False).degraded


def test_a_lost_model_excuses_no_wrong_request():
    """A blank query is refused with or without a model."""
    with pytest.raises(ValueError, match="query"):
        SharedReranker(LOST).rerank(" ", CANDIDATES)


def test_what_cannot_pass_is_raised():
    """A path to nothing never becomes the retriever's order; a check finds it without a load."""
    for ask in (SharedReranker.check, SharedReranker.warm_up, SharedReranker.engine):
        with pytest.raises(ModelError, match="neither a file, nor a folder"):
            ask(SharedReranker(NOWHERE))
    with pytest.raises(ModelError, match="neither a file"):
        SharedReranker(NOWHERE).rerank("red fox", CANDIDATES)
    with pytest.raises(ModelError, match="neither a file"):
        asyncio.run(SharedReranker(NOWHERE).arerank("red fox", CANDIDATES))
    with pytest.raises(ConfigError, match="stage"):
        SharedReranker({"stage": []}).check()
    helped = [*NOWHERE["stages"], {"scorer": "lexical", "when": "fallback"}]
    for sound in (LEXICAL, LOST, {"stages": helped}, {}):
        SharedReranker(sound).check()


def test_paths_may_be_paths(tiny_model, tmp_path):
    """A folder or a settings file may be a `Path`."""
    shared = shared_reranker(ComponentOptions(model=tiny_model))
    assert not shared.rerank("red fox", CANDIDATES).degraded
    path = tmp_path / "rerank.toml"
    path.write_text('stages = [{ scorer = "lexical" }]')
    shared = shared_reranker(ComponentOptions(config=path))
    assert shared.rerank("red fox", CANDIDATES).order == (1, 0)


def test_a_component_for_each_request_finds_the_engine_of_the_last(tiny_model):
    """An engine outlives its last holder for a while, unless it was released."""
    source = {"stages": [{"scorer": str(tiny_model), "max_tokens": 77}]}
    names = set()
    for _ in range(3):
        engine = SharedReranker(source).engine()
        names.add(id(engine.setup))
        kept = weakref.ref(engine)
        del engine
        gc.collect()
    assert len(names) == 1
    shared = SharedReranker(source)
    shared.engine()
    shared.close()
    assert _ends(kept)


def test_a_kept_engine_is_let_go_in_the_end():
    """After a while without use nothing holds it."""
    now = [0.0]
    engines = Engines(lambda: now[0])
    kept = weakref.ref(engines.load(read({**LEXICAL, "selection": {"depth": 9}})).result())
    engines._let_go()
    assert kept() is not None
    now[0] = 400.0
    engines._let_go()
    assert _ends(kept)


def test_a_failed_load_is_remembered_for_a_while():
    """Requests do not try again one by one; a warm-up does, and so do requests later on."""
    now = [0.0]
    engines, settings = Engines(lambda: now[0]), read(LOST)
    first = engines.load(settings).exception()
    assert isinstance(first, ModelUnavailable)
    assert engines.load(settings).exception() is first
    second = engines.load(settings, again=True).exception()
    assert second is not first
    now[0] = 40.0
    assert engines.load(settings).exception() is not second


def _ends(kept):
    """True once the thread that loaded an engine has let go of it, and nothing else holds it."""
    for _ in range(200):
        gc.collect()
        if kept() is None:
            return True
        time.sleep(0.01)
    return False


SILENT_HUB = """
import asyncio, json, sys, threading, time
from rerank_plugins import Candidate
from rerank_plugins.serving.shared_engine import SharedReranker
given = [Candidate("a blue hen"), Candidate("a red fox")]
model = {"stages": [{"scorer": "org/tiny", "cache_dir": sys.argv[1]}]}
SharedReranker(model).check()
lexical = {"stages": [{"scorer": "lexical"}]}
facts = []
def timed(name, ask):
    started = time.monotonic()
    result = ask()
    codes = [decision.code.code for decision in result.decisions]
    facts.append((name, time.monotonic() - started, codes, result.order))
timed("sync", lambda: SharedReranker(model).rerank("red fox", given, budget_ms=300))
timed("async", lambda: asyncio.run(SharedReranker(model).arerank("red fox", given, budget_ms=300)))
timed("settings", lambda: SharedReranker({**model, "budget": {"time_ms": 300}}).rerank("q", given))
cold = {**model, "service": {"when_cold": "pass_through"}}
timed("cold", lambda: SharedReranker(cold).rerank("q", given))
timed("other", lambda: SharedReranker(lexical).rerank("red fox", given))
threads = [one for one in threading.enumerate() if one.name == "rerank-load"]
timed("patient", lambda: SharedReranker(model).rerank("red fox", given))
print(json.dumps([len(threads), facts]))
"""


def test_a_hub_that_never_answers_stops_nobody(tmp_path):
    """A budget holds while the model loads, other engines work, and the cache serves at last."""
    tiny.cache(tmp_path / "hub", "org/tiny", tiny.build(tmp_path / "m", graph="onnx/model.onnx"))
    with socket.create_server(("127.0.0.1", 0), backlog=64) as server:
        endpoint = f"http://127.0.0.1:{server.getsockname()[1]}"
        done = subprocess.run(
            [sys.executable, "-c", SILENT_HUB, str(tmp_path / "hub")],
            env={**os.environ, "HF_ENDPOINT": endpoint},
            capture_output=True,
            text=True,
            check=True,
            timeout=120,
        )
    threads, facts = json.loads(done.stdout)
    *hurried, other, patient = facts
    for name, seconds, codes, order in hurried:
        assert codes == ["not_warm", "pass_through"], name
        assert order == [0, 1]
        assert seconds < 0.6, (name, seconds)
    assert other[3] == [1, 0]
    assert other[1] < 3.0
    assert threads == 3
    assert "pass_through" not in patient[2]
    assert patient[1] < 30.0
