"""Specification of `rerank_plugins.serving.shared_engine`."""

import copy
import gc
import pickle

import pytest

from rerank_plugins import Candidate, RerankError
from rerank_plugins.serving.shared_engine import ComponentOptions, SharedReranker, shared_reranker

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


def test_a_config_that_is_strict_raises_for_a_lost_model():
    """Strictness written in a config counts even before its model could be loaded."""
    lost = {"stages": [{"scorer": "/no/such.onnx"}]}
    assert SharedReranker(lost).rerank("red fox", CANDIDATES).degraded
    with pytest.raises(RerankError):
        SharedReranker({**lost, "strict": True}).rerank("red fox", CANDIDATES)
    assert SharedReranker({**lost, "strict": True}).rerank("q", CANDIDATES, strict=False).degraded


def test_a_lost_model_excuses_no_wrong_request():
    """A blank query is refused with or without a model."""
    with pytest.raises(ValueError, match="query"):
        SharedReranker({"stages": [{"scorer": "/no/such.onnx"}]}).rerank(" ", CANDIDATES)
