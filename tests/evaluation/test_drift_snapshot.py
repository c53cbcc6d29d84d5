"""Snapshots taken of a set of queries, as a service would answer them."""

from dataclasses import replace

import pytest

from rerank_plugins import Candidate
from rerank_plugins.config.build import build_setup
from rerank_plugins.config.read import parse_settings
from rerank_plugins.errors import InvalidRequest
from rerank_plugins.evaluation import drift_snapshot
from rerank_plugins.evaluation.datasets import Topic
from tests import tiny


def topics(count):
    """Return queries with eight candidates each, no two alike."""
    found = []
    for at in range(count):
        texts = tiny.passages(8, seed=at)
        candidates = tuple(Candidate(text, 8.0 - i) for i, text in enumerate(texts))
        docids = tuple(f"{at}-{i}" for i in range(8))
        found.append(Topic(f"q{at}", f"what {texts[3].split()[0]}", docids, candidates))
    return found


def setup(**settings):
    """Return a setup of the lexical scorer."""
    return build_setup(parse_settings({"stages": [{"scorer": "lexical"}], **settings}, "a test"))


def test_every_request_is_noted_whole_whatever_is_cut_off():
    """A cut of the answers to one changes nothing in what is noted."""
    moves = []
    whole = drift_snapshot.take(setup(), topics(60), progress=lambda: moves.append(1))
    cut = drift_snapshot.take(setup(selection={"top_k": 1}), topics(60))
    assert whole.requests == len(moves) == 60
    assert cut == whole
    assert all(len(values) >= 40 for values in whole.values.values())


def test_the_fixed_pairs_are_scored_too():
    """A snapshot knows the model again by its scores of sixteen pairs."""
    found = drift_snapshot.take(setup(), topics(50))
    assert len(found.canaries) == 16
    assert found.model == "lexical"


def test_too_few_scored_requests_make_no_snapshot():
    """Forty-nine are refused, and so are queries without any passage to score."""
    with pytest.raises(InvalidRequest, match="49 of 49 requests were scored"):
        drift_snapshot.take(setup(), topics(49))
    blank = [replace(one, candidates=(Candidate(None),) * 8) for one in topics(60)]
    with pytest.raises(InvalidRequest, match="0 of 60 requests were scored"):
        drift_snapshot.take(setup(), blank)
