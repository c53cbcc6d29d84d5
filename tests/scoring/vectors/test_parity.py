"""Parity: our vectors are those of sentence-transformers, for each kind of encoder."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from rerank_plugins.scoring.onnx.options import OnnxOptions
from rerank_plugins.scoring.vectors.encoder import Encoder
from rerank_plugins.scoring.vectors.layout import find_encoder
from tests import tiny
from tests.scoring.vectors import encoders

QUERIES = ["what is a red fox", "monoid", "the quick brown dog jumps over the lazy hen"]
PASSAGES = [*tiny.passages(12), "", "fox", "red fox " * 60]
OPTIONS = OnnxOptions(graph_cache=False)
# Every kind runs in CI; these at every turn.
QUICK = {"mean", "cls", "dense"}
CASES = [
    pytest.param(one, id=one.name, marks=[] if one.name in QUICK else [pytest.mark.slow])
    for one in encoders.KINDS
]


@dataclass(frozen=True, slots=True)
class Case:
    """A kind of encoder, its folder, and what sentence-transformers makes of the texts."""

    kind: encoders.Kind
    folder: Path
    queries: np.ndarray
    passages: np.ndarray


@pytest.fixture(scope="module", params=CASES)
def case(request, tmp_path_factory):
    """Build an encoder of each kind, once."""
    folder = tmp_path_factory.mktemp(request.param.name) / "model"
    model = encoders.build(request.param, folder)
    return Case(
        request.param,
        folder,
        encoders.vectors(model, QUERIES, query=True),
        encoders.vectors(model, PASSAGES, query=False),
    )


def test_vectors_are_those_of_sentence_transformers(case):
    """Queries and passages differ by at most 1e-4, padded or alone, rewritten or not."""
    for rewrite in (True, False):
        encoder = Encoder(
            find_encoder(case.folder), OnnxOptions(graph_cache=False, rewrite=rewrite)
        )
        expected = (case.queries, case.passages)
        if encoder.layout.similarity == "cosine":
            expected = tuple(
                one / np.maximum(np.linalg.norm(one, axis=1, keepdims=True), 1e-12)
                for one in expected
            )
        found = np.concatenate(
            [encoder.query_vectors(encoder.query_arrays(query)) for query in QUERIES]
        )
        np.testing.assert_allclose(found, expected[0], atol=1e-4, rtol=1e-4)
        np.testing.assert_allclose(encoder.encode(PASSAGES), expected[1], atol=1e-4, rtol=1e-4)
        alone = np.concatenate([encoder.encode([passage]) for passage in PASSAGES[:4]])
        np.testing.assert_allclose(alone, expected[1][:4], atol=1e-4, rtol=1e-4)


def test_the_graph_is_rewritten_where_layers_are_known(case):
    """BERT and its relatives run rewritten; with CLS pooling the last layer has one row."""
    encoder = Encoder(find_encoder(case.folder), OPTIONS)
    if case.kind.base is encoders.QWEN:
        assert "no encoder layer" in encoder.rewrite_failure
        return
    assert encoder.rewrite_failure == ""
    rows = encoder._graph.output.endswith("/first")
    assert rows == (case.kind.pooling == "cls" and case.kind.include_prompt)


def test_the_limits_and_prompts_are_those_of_the_configuration(case):
    """What the folder says is read."""
    encoder = Encoder(find_encoder(case.folder), OPTIONS)
    assert encoder.max_tokens == 48
    assert encoder.layout.query_prompt == case.kind.prompts.get("query", "")
    assert encoder.layout.passage_prompt == case.kind.prompts.get("document", "")
    assert encoder.layout.similarity == case.kind.similarity
    assert len(encoder.layout.steps) == len(case.kind.dense) + case.kind.normalise
