"""Parity: our answer is torch's answer, for each family, batch, order and layout."""

import warnings

import numpy as np
import pytest

from rerank_plugins import Reranker
from rerank_plugins.scoring.models.files import find
from rerank_plugins.scoring.onnx.options import OnnxOptions, usable_tokens
from rerank_plugins.scoring.onnx.scorer import OnnxScorer
from rerank_plugins.scoring.onnx.session import single_column
from tests import tiny
from tests.scoring import families

QUERY = "what is a red fox"
PASSAGES = tiny.passages(64)
LONG = " ".join(tiny.WORDS[:-1] * 20)
# Every family runs in CI; these two at every turn.
QUICK = {"bert", "xlm-roberta-two-columns"}
CASES = [
    pytest.param(one.name, marks=[] if one.name in QUICK else [pytest.mark.slow])
    for one in families.FAMILIES
]


@pytest.fixture(scope="module")
def checkpoint(request, tmp_path_factory):
    """Build the checkpoint of a family, once."""
    family = next(one for one in families.FAMILIES if one.name == request.param)
    return families.build(family, tmp_path_factory.mktemp(family.name) / "model")


@pytest.fixture(scope="module")
def scorer(checkpoint):
    """Load the checkpoint as users do."""
    return OnnxScorer(find(checkpoint.folder), OnnxOptions(graph_cache=False))


def in_batches(scorer, passages, size):
    """Score passages in batches of exactly `size`, each padded to its longest."""
    query = scorer.tokenizer.query(QUERY)
    room = scorer.tokenizer.room(query, scorer.max_tokens)
    ids = [one[:room] for one in scorer.tokenizer.passages(passages)[0]]
    extra = len(query) + scorer.tokenizer.template.special_tokens
    logits = []
    for start in range(0, len(ids), size):
        group = ids[start : start + size]
        length = extra + max(map(len, group))
        columns = scorer.graph.run(scorer.tokenizer.assemble(query, group, length))
        logits += single_column(columns, None, scorer.name).tolist()
    return np.array(logits)


def by_index(result):
    """Give a result's scores in the candidates' order."""
    return np.array([hit.score for hit in sorted(result, key=lambda hit: hit.index)])


def order(scores):
    """Order by score, ties in first-stage order."""
    return tuple(np.argsort(-np.asarray(scores), kind="stable").tolist())


@pytest.mark.parametrize("checkpoint", CASES, indirect=True)
class TestFamily:
    """One family of cross-encoders, against transformers and torch."""

    @pytest.mark.parametrize("size", [1, 7, 64])
    def test_logits_and_order_are_torchs_for_any_batch_size(self, checkpoint, scorer, size):
        """Alone or padded beside others, each pair has torch's logit, and all have its order."""
        expected = checkpoint.logits(QUERY, PASSAGES)
        assert expected.std() > 0.01
        found = in_batches(scorer, PASSAGES, size)
        np.testing.assert_allclose(found, expected, atol=1e-4, rtol=0)
        assert order(found) == order(expected)

    @pytest.mark.parametrize("batch_tokens", [1, 256, 4096])
    def test_the_reranker_gives_torchs_order(self, checkpoint, batch_tokens):
        """The whole path, in batches of any size, gives torch's scores and its exact order."""
        setting = {"scorer": str(checkpoint.folder), "max_batch_tokens": batch_tokens}
        expected = checkpoint.logits(QUERY, PASSAGES)
        with _load({**setting, "long": "truncate"}) as reranker:
            result = reranker.rerank(QUERY, PASSAGES)
        np.testing.assert_allclose(by_index(result), expected, atol=1e-4, rtol=0)
        assert result.order == order(expected)

    def test_the_order_of_candidates_changes_nothing(self, checkpoint):
        """However the first stage ordered them, candidates get the same scores."""
        shuffled = np.random.default_rng(5).permutation(len(PASSAGES))
        with Reranker(checkpoint.folder) as reranker:
            straight = by_index(reranker.rerank(QUERY, PASSAGES))
            mixed = by_index(reranker.rerank(QUERY, [PASSAGES[i] for i in shuffled]))
        np.testing.assert_allclose(mixed, straight[shuffled], atol=1e-5, rtol=0)

    def test_the_usable_length_is_used_to_the_last_token(self, checkpoint, scorer):
        """Pairs of exactly the usable length run, and score as torch scores them."""
        assert usable_tokens(scorer.files) == checkpoint.family.usable_tokens
        expected = checkpoint.logits(QUERY, [LONG, f"fox {LONG}"])
        with Reranker(checkpoint.folder, long="truncate") as reranker:
            result = reranker.rerank(QUERY, [LONG, f"fox {LONG}"])
        np.testing.assert_allclose(by_index(result), expected, atol=1e-4, rtol=0)
        assert result.usage.tokens == 2 * checkpoint.family.usable_tokens
        assert all(hit.truncated_tokens > 0 for hit in result)

    def test_windows_of_a_long_passage_all_run(self, checkpoint):
        """A passage of many windows is scored to its end without leaving the position table."""
        with Reranker(checkpoint.folder) as reranker:
            result = reranker.rerank(QUERY, [f"{LONG} {LONG}", "a red fox"])
        assert not result.degraded
        assert all(np.isfinite(hit.score) for hit in result)

    def test_pairs_are_laid_out_as_transformers_lays_them_out(self, checkpoint, scorer):
        """Token ids, mask and token types are transformers' own, special tokens included."""
        theirs = checkpoint.tokenizer([QUERY] * 8, PASSAGES[:8], padding=True, return_tensors="np")
        ids = scorer.tokenizer.passages(PASSAGES[:8])[0]
        length = theirs["input_ids"].shape[1]
        ours = scorer.tokenizer.assemble(scorer.tokenizer.query(QUERY), ids, length)
        for name in checkpoint.family.inputs:
            mask = theirs["attention_mask"]
            np.testing.assert_array_equal(getattr(ours, name) * mask, theirs[name] * mask)
        np.testing.assert_array_equal(ours.input_ids, theirs["input_ids"])


def _load(stage):
    from rerank_plugins import load

    return load({"stages": [stage]})


@pytest.mark.slow
def test_a_folder_of_transformers_own_exporter_loads(tmp_path):
    """A graph with its .onnx.data sidecar, as transformers writes them, gives torch's scores."""
    from transformers.exporters import OnnxConfig, OnnxExporter

    family = families.FAMILIES[0]
    checkpoint = families.build(family, tmp_path / "script")
    pair = ["a red fox", "the river and a blue hen"]
    sample = checkpoint.tokenizer([QUERY] * 2, pair, padding=True, return_tensors="pt")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        exported = OnnxExporter().export(
            checkpoint.model, dict(sample), config=OnnxConfig(dynamic=True)
        )
        exported.save_pretrained(str(tmp_path / "own"))
    assert (tmp_path / "own" / "model.onnx.data").is_file()
    checkpoint.tokenizer.save_pretrained(tmp_path / "own")
    with Reranker(tmp_path / "own", long="truncate") as reranker:
        result = reranker.rerank(QUERY, PASSAGES)
    expected = checkpoint.logits(QUERY, PASSAGES)
    np.testing.assert_allclose(by_index(result), expected, atol=1e-4, rtol=0)
    assert result.order == order(expected)
