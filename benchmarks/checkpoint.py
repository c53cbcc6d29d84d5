"""One checkpoint for all: the folder that every peer loads in its own format.

python checkpoint.py GEOMETRY FOLDER, in the peers' environment.
"""

import json
import shutil
import sys
import warnings
from pathlib import Path

import torch
import transformers as hf

ROOT = Path(__file__).parent.parent
EMBEDDED = ROOT / "rerank_plugins" / "models" / "embedded"
# Layers, width, heads, inner width.
GEOMETRIES = {
    "TinyBERT-L2": (2, 128, 2, 512),
    "MiniLM-L6": (6, 384, 12, 1536),
    "MiniLM-L12": (12, 384, 12, 1536),
    "base": (12, 768, 12, 3072),
}
INPUTS = ("input_ids", "attention_mask", "token_type_ids")


class Logits(torch.nn.Module):
    """A model as a function of positional inputs."""

    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, ids: torch.Tensor, mask: torch.Tensor, types: torch.Tensor) -> torch.Tensor:
        """Return the logits, [batch, 1]."""
        return self.model(input_ids=ids, attention_mask=mask, token_type_ids=types).logits


def make(geometry: str, folder: Path) -> str:
    """Write config, safetensors, tokenizer and ONNX; tell where the weights are from."""
    layers, width, heads, inner = GEOMETRIES[geometry]
    torch.manual_seed(0)
    config = hf.BertConfig(
        num_hidden_layers=layers,
        hidden_size=width,
        num_attention_heads=heads,
        intermediate_size=inner,
        num_labels=1,
    )
    model = hf.BertForSequenceClassification(config).eval()
    origin = "random"
    for name, weight in model.named_parameters():
        # Wider than at the start of a training, so that scores differ from passage to passage.
        if weight.ndim == 2 and "embeddings" not in name:  # noqa: PLR2004
            weight.data *= 2.5
    if geometry == "MiniLM-L6" and _fill(model):
        origin = "the embedded model's encoder, random head"
    model.save_pretrained(folder)
    _tokenizer(folder)
    _to_onnx(model, folder / "onnx" / "model.onnx")
    (folder / "origin.txt").write_text(origin)
    return origin


def _fill(model: hf.BertForSequenceClassification) -> bool:
    """Copy the packaged encoder's weights, if its graph is one that the rewrites know."""
    import onnx

    sys.path.insert(0, str(ROOT))
    from rerank_plugins.scoring.onnx.graph.dequantise import dequantise
    from rerank_plugins.scoring.onnx.graph.read import GraphIndex
    from rerank_plugins.scoring.onnx.graph.recognise import find_layers

    proto = onnx.load(EMBEDDED / "model.onnx")
    dequantise(proto)
    graph = GraphIndex.of(proto)
    layers = find_layers(graph)
    if len(layers) != model.config.num_hidden_layers:
        return False
    for layer, target in zip(layers, model.bert.encoder.layer, strict=True):
        inner = target.attention.self
        linears = (
            (layer.attention.query, inner.query),
            (layer.attention.key, inner.key),
            (layer.attention.value, inner.value),
            (layer.out, target.attention.output.dense),
            (layer.wide, target.intermediate.dense),
            (layer.narrow, target.output.dense),
        )
        for ours, theirs in linears:
            theirs.weight.data = torch.tensor(ours.weight.T.copy())
            theirs.bias.data = torch.tensor(ours.bias)
        norms = (
            (layer.norm_1, target.attention.output.LayerNorm),
            (layer.norm_2, target.output.LayerNorm),
        )
        for ours, theirs in norms:
            theirs.weight.data = torch.tensor(ours.gain)
            theirs.bias.data = torch.tensor(ours.bias)
    return True


def _tokenizer(folder: Path) -> None:
    shutil.copy(EMBEDDED / "tokenizer.json", folder / "tokenizer.json")
    special = {
        "cls_token": "[CLS]",
        "sep_token": "[SEP]",
        "pad_token": "[PAD]",
        "unk_token": "[UNK]",
        "mask_token": "[MASK]",
    }
    settings = {"tokenizer_class": "BertTokenizerFast", "model_max_length": 512, **special}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    (folder / "special_tokens_map.json").write_text(json.dumps(special))


def _to_onnx(model: torch.nn.Module, path: Path) -> None:
    path.parent.mkdir(exist_ok=True)
    ids = torch.randint(5, 200, (2, 11))
    mask = torch.ones_like(ids)
    mask[1, 7:] = 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            Logits(model),
            (ids, mask, torch.zeros_like(ids)),
            str(path),
            input_names=list(INPUTS),
            output_names=["logits"],
            dynamic_axes={name: {0: "batch", 1: "length"} for name in INPUTS}
            | {"logits": {0: "batch"}},
            opset_version=17,
            dynamo=False,
        )


if __name__ == "__main__":
    print(make(sys.argv[1], Path(sys.argv[2])))
