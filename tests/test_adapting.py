"""Specification of `rerank_plugins.adapting`."""

import copy
import gc
import json
import math
import pickle

import numpy as np
import pytest

from rerank_plugins import Candidate, RerankError
from rerank_plugins.adapting import SharedReranker, facts, hit_facts, prior, settings, shown
from rerank_plugins.records import Hit

LEXICAL = {"stages": [{"scorer": "lexical"}]}
CANDIDATES = [Candidate("a blue hen"), Candidate("a red fox")]


@pytest.mark.parametrize("score", [1, 0.5, np.float32(0.5), np.int64(3), -2.0])
def test_numbers_of_any_type_are_priors(score):
    """Whatever a retriever calls a number becomes a float."""
    assert prior(score) == pytest.approx(float(score))
    assert type(prior(score)) is float


@pytest.mark.parametrize("score", [None, math.nan, math.inf, np.float32("nan"), "0.5", [1.0], {}])
def test_everything_else_is_no_prior(score):
    """None, what is not finite and what is no number are no priors."""
    assert prior(score) is None


def test_what_orders_is_shown():
    """The fused score is shown where it orders, otherwise the model's own, otherwise None."""
    assert shown(Hit(0, 1.5)) == 1.5
    assert shown(Hit(0, 1.5, probability=0.9, fused=0.2)) == 0.2
    assert shown(Hit(0, None)) is None


def test_scaled_scores_are_probabilities():
    """Calibrated where the model is, otherwise the logistic function, without overflow."""
    assert shown(Hit(0, 1.5, probability=0.9), scale=True) == 0.9
    assert shown(Hit(0, 0.0), scale=True) == 0.5
    assert shown(Hit(0, 2.0), scale=True) == pytest.approx(1 / (1 + math.exp(-2)))
    assert shown(Hit(0, -1e6), scale=True) == 0.0
    assert shown(Hit(0, None), scale=True) is None


def test_options_become_settings():
    """Only what was set is written, so that everything else keeps its default."""
    assert settings() == {"stages": [{"scorer": "embedded"}]}
    assert settings(model="m", revision="r", local_files_only=True, depth=5, prior_weight=0.0) == {
        "stages": [{"scorer": "m", "revision": "r", "local_files_only": True}],
        "selection": {"depth": 5},
        "fusion": {"prior_weight": 0.0},
    }


@pytest.mark.parametrize("option", [{"model": "m"}, {"depth": 3}, {"max_tokens": 9}])
def test_a_config_stands_alone(option):
    """A config and an option that it could hold are refused together, by name."""
    with pytest.raises(ValueError, match=next(iter(option))):
        settings(config=LEXICAL, **option)
    assert settings(config=LEXICAL) == LEXICAL


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


def test_the_model_has_a_name_before_it_is_loaded():
    """Events that start a reranking need a name at once."""
    assert SharedReranker(LEXICAL).model == "lexical"
    assert SharedReranker("rerank.toml").model == "rerank.toml"
    assert SharedReranker({}).model == "embedded"
    two = {"stages": [{"scorer": "lexical", "keep": 3}, {}]}
    assert SharedReranker(two).model == "lexical > embedded"


def test_facts_are_plain_data():
    """Facts of a request and of a hit survive JSON unchanged."""
    result = SharedReranker(LEXICAL).rerank("red fox", CANDIDATES, top_k=1)
    said = {**facts(result), **hit_facts(result[0])}
    assert json.loads(json.dumps(said)) == said
    assert (said["degraded"], said["stage"]) == (False, "lexical")


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
