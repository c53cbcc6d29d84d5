"""A checkpoint becomes a folder that the engine opens, with proof that scores are the same."""

import json

import pytest

from rerank_plugins import Reranker
from rerank_plugins.errors import ModelError
from rerank_plugins.export import STEPS, export
from rerank_plugins.records import Code
from rerank_plugins.scorers.files import verify
from tests.scorers.tiny import folder as tiny_folder
from tests.scorers.tiny import passages


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """Write a tiny BERT as transformers saves one."""
    import torch
    from transformers import BertConfig, BertForSequenceClassification, PreTrainedTokenizerFast

    home = tmp_path_factory.mktemp("checkpoint")
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=40,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=64,
        num_labels=1,
    )
    model = BertForSequenceClassification(config)
    for weight in model.parameters():
        weight.data += torch.randn_like(weight) * 0.2
    model.save_pretrained(home / "bert")
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_file=str(tiny_folder(home / "tiny") / "tokenizer.json"),
        unk_token="[UNK]",
        pad_token="[PAD]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        model_max_length=64,
    )
    tokenizer.save_pretrained(home / "bert")
    return home / "bert"


@pytest.mark.slow
def test_an_exported_checkpoint_ranks_at_once_and_is_rewritten(checkpoint, tmp_path):
    """Graph with its sidecar, tokenizer, parity and manifest: the folder is complete."""
    heard = []
    made = export(str(checkpoint), tmp_path / "out", int8=True, progress=heard.append)
    assert tuple(heard) == STEPS
    assert made.parity.difference <= 1e-4
    assert made.parity.same_order
    assert made.int8_parity is not None
    assert {"model.onnx", "model_int8.onnx", "tokenizer.json", "config.json"} <= set(made.files)
    assert verify(tmp_path / "out") == len(made.files)
    written = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert written["parity"]["fp32"]["same_order"] is True
    with Reranker(tmp_path / "out") as reranker:
        result = reranker.rerank("a hedge", passages(6))
    assert result.usage.pairs > 0
    assert Code.GRAPH not in {one.code for one in result.decisions}


def test_a_folder_in_use_is_never_overwritten(checkpoint, tmp_path):
    """What lies there may be someone's model."""
    (tmp_path / "model.onnx").write_text("mine")
    with pytest.raises(ModelError, match="not empty"):
        export(str(checkpoint), tmp_path)
    assert (tmp_path / "model.onnx").read_text() == "mine"


def test_no_checkpoint_is_said_so(tmp_path):
    """An empty folder is no model, and leaves nothing behind."""
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(ModelError, match="no checkpoint"):
        export(str(empty), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_optimum_is_asked_for_where_it_is_missing(checkpoint, tmp_path):
    """It pins an older transformers, so the message says where to install it."""
    with pytest.raises(ModelError, match="environment of its own"):
        export(str(checkpoint), tmp_path / "out", exporter="optimum")
