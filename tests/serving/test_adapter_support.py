"""Specification of `rerank_plugins.serving.adapter_support`."""

import json
import math

import numpy as np
import pytest

from rerank_plugins import Reranker
from rerank_plugins.serving.adapter_support import facts, hit_facts, prior


@pytest.mark.parametrize("score", [1, 0.5, np.float32(0.5), np.int64(3), -2.0])
def test_numbers_of_any_type_are_priors(score):
    """Whatever a retriever calls a number becomes a float."""
    assert prior(score) == pytest.approx(float(score))
    assert type(prior(score)) is float


@pytest.mark.parametrize("score", [None, math.nan, math.inf, np.float32("nan"), "0.5", [1.0], {}])
def test_everything_else_is_no_prior(score):
    """None, what is not finite and what is no number are no priors."""
    assert prior(score) is None


def test_facts_are_plain_data():
    """Facts of a request and of a hit survive JSON unchanged."""
    with Reranker("lexical") as reranker:
        result = reranker.rerank("red fox", ["a blue hen", "a red fox"], top_k=1)
    said = {**facts(result), **hit_facts(result[0])}
    assert json.loads(json.dumps(said)) == said
    assert (said["degraded"], said["stage"]) == (False, "lexical")
