"""A checkpoint becomes a folder that the engine opens, with proof that scores are the same."""

import json
import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from rerank_plugins import Reranker
from rerank_plugins.errors import ModelError
from rerank_plugins.records import Code
from rerank_plugins.scoring.export.export import STEPS, export
from rerank_plugins.scoring.models.content import verify
from tests.scoring.tiny import folder as tiny_folder
from tests.scoring.tiny import passages


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


@pytest.mark.parametrize("answer", ["y", "n"])
def test_code_of_a_checkpoint_never_runs(tmp_path, monkeypatch, answer):
    """A checkpoint that brings its own code is refused without a question."""
    folder = tmp_path / "checkpoint"
    folder.mkdir()
    (folder / "code.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w').close()\n")
    auto = {"AutoConfig": "code.Config", "AutoModelForSequenceClassification": "code.Model"}
    (folder / "config.json").write_text(json.dumps({"model_type": "own", "auto_map": auto}))
    asked = []

    def reply(prompt=""):
        asked.append(prompt)
        return answer

    monkeypatch.setattr("builtins.input", reply)
    with pytest.raises(ModelError, match="needs Python code of its own"):
        export(str(folder), tmp_path / "out")
    assert not asked
    assert not (tmp_path / "ran").exists()
    assert not (tmp_path / "out").exists()


def test_a_checkpoint_without_a_trained_head_is_refused(checkpoint, tmp_path):
    """A head of random numbers would compare well with itself: its weights are named."""
    from transformers import BertModel

    folder = tmp_path / "encoder"
    shutil.copytree(checkpoint, folder)
    (folder / "model.safetensors").unlink()
    BertModel.from_pretrained(checkpoint).save_pretrained(folder)
    with pytest.raises(ModelError, match=r"lacks the weights .*classifier\.weight"):
        export(str(folder), tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json"])
def test_a_checkpoint_whose_json_is_too_deep_is_an_error(checkpoint, tmp_path, name):
    """The libraries that read a checkpoint give up; the export says so."""
    folder = shutil.copytree(checkpoint, tmp_path / "deep")
    (folder / name).write_text("[" * 100_000 + "]" * 100_000)
    with pytest.raises(ModelError, match="no checkpoint at"):
        export(str(folder), tmp_path / "out")


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


@pytest.fixture(scope="module")
def optimum(tmp_path_factory):
    """Build an environment with optimum and the older transformers it pins; torch is this one's.

    It takes seconds: what optimum does not pin is looked up here.
    """
    home = tmp_path_factory.mktemp("optimum")
    uv = Path(sys.executable).parent / "uv"
    if not uv.exists():
        pytest.skip("building an environment needs uv")
    (home / "override.txt").write_text("torch ; sys_platform == 'never'\n")
    python = home / "env" / "bin" / "python"
    install = ["pip", "install", "--quiet", "--python", python, "--override", home / "override.txt"]
    for command in (
        ["venv", "--quiet", "--python", sys.executable, home / "env"],
        [*install, "optimum-onnx==0.1.0"],
    ):
        done = subprocess.run([uv, *command], capture_output=True, text=True, check=False)
        if "Failed to fetch" in done.stderr:
            pytest.skip("no package index is in reach")
        assert done.returncode == 0, done.stderr
    (packages,) = (home / "env" / "lib").glob("python*/site-packages")
    (packages / "beside.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return python


@pytest.mark.slow
def test_optimum_exports_in_an_environment_of_its_own(optimum, tmp_path):
    """What it writes under an older transformers has torch's scores, and opens here."""
    done = subprocess.run(
        [optimum, "-m", "tests.scoring.models.optimum_session", tmp_path],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parents[3],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])},
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["transformers"].startswith("4.")
    assert found["exporter"] == "optimum"
    assert found["difference"] <= 1e-4
    assert found["same_order"]
    assert verify(tmp_path / "out") == len(found["files"])
    with Reranker(tmp_path / "out") as reranker:
        assert reranker.rerank("what is a red fox", passages(6)).usage.pairs > 0
