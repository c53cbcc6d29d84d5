"""Export the tiny encoders beside this file, as torch's two exporters write them.

Run with torch and transformers installed: python tests/data/graphs/make.py
"""

import tempfile
import warnings
from pathlib import Path

import onnx
import torch
import transformers as hf

HERE = Path(__file__).parent
SHAPE = {
    "vocab_size": 40,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "max_position_embeddings": 66,
    "num_labels": 1,
}
KINDS = {
    "bert": (hf.BertConfig, hf.BertForSequenceClassification, {}),
    "xlmr": (hf.XLMRobertaConfig, hf.XLMRobertaForSequenceClassification, {}),
    "electra": (hf.ElectraConfig, hf.ElectraForSequenceClassification, {"embedding_size": 8}),
    "modernbert": (
        hf.ModernBertConfig,
        hf.ModernBertForSequenceClassification,
        dict.fromkeys(("pad_token_id", "cls_token_id", "sep_token_id", "bos_token_id"), 1)
        | {"eos_token_id": 1},
    ),
}
INPUTS = ("input_ids", "attention_mask", "token_type_ids")


class Logits(torch.nn.Module):
    """A model as a function of positional inputs, which both exporters take."""

    def __init__(self, model: torch.nn.Module, names: tuple[str, ...]) -> None:
        super().__init__()
        self.model, self.names = model, names

    def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
        """Give the logits, [batch, 1]."""
        return self.model(**dict(zip(self.names, inputs, strict=True))).logits


def export(kind: str, attention: str, *, dynamo: bool) -> None:
    """Write one graph, without the stack traces that the newer exporter puts in."""
    config, architecture, more = KINDS[kind]
    torch.manual_seed(0)
    model = architecture(config(**SHAPE, **more)).eval()
    for weight in model.parameters():
        weight.data += torch.randn_like(weight) * 0.2
    model.set_attn_implementation(attention)
    names = INPUTS if kind in {"bert", "electra"} else INPUTS[:2]
    ids, mask = torch.randint(5, 40, (2, 9)), torch.ones(2, 9, dtype=torch.long)
    mask[1, 6:] = 0
    inputs = (ids, mask, torch.zeros_like(ids))[: len(names)]
    path = HERE / f"{kind}-{attention}-{'dynamo' if dynamo else 'script'}.onnx"
    if dynamo:
        any_size = {0: torch.export.Dim.DYNAMIC, 1: torch.export.Dim.DYNAMIC}
        shapes = {"dynamic_shapes": [tuple(any_size for _ in names)], "external_data": False}
    else:
        axes = {name: {0: "batch", 1: "length"} for name in names}
        shapes = {"dynamic_axes": axes | {"logits": {0: "batch"}}, "opset_version": 14}
    torch.onnx.export(
        Logits(model, names),
        inputs,
        str(path),
        input_names=list(names),
        output_names=["logits"],
        dynamo=dynamo,
        **shapes,
    )
    _strip(path)


def export_by_transformers(kind: str) -> None:
    """Write one graph with the exporter of transformers itself."""
    from transformers.exporters.exporter_onnx import OnnxConfig, OnnxExporter

    config, architecture, more = KINDS[kind]
    torch.manual_seed(0)
    model = architecture(config(**SHAPE, **more)).eval()
    for weight in model.parameters():
        weight.data += torch.randn_like(weight) * 0.2
    ids, mask = torch.randint(5, 40, (2, 9)), torch.ones(2, 9, dtype=torch.long)
    mask[1, 6:] = 0
    inputs = {"input_ids": ids, "attention_mask": mask, "token_type_ids": torch.zeros_like(ids)}
    made = OnnxExporter().export(model, inputs, config=OnnxConfig(dynamic=True))
    path = HERE / f"{kind}-sdpa-transformers.onnx"
    with tempfile.TemporaryDirectory() as folder:
        made.save_pretrained(folder)
        onnx.save(onnx.load(Path(folder) / "model.onnx"), path)
    _strip(path)


def _strip(path: Path) -> None:
    """Drop stack traces and shape notes."""
    graph = onnx.load(path)
    for node in graph.graph.node:
        del node.metadata_props[:]
        node.doc_string = ""
    del graph.graph.value_info[:], graph.graph.metadata_props[:]
    onnx.save(graph, path)


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    for name in ("bert", "xlmr", "electra"):
        export(name, "eager", dynamo=False)
        export(name, "sdpa", dynamo=True)
    export("bert", "sdpa", dynamo=False)
    export("bert", "eager", dynamo=True)
    export("modernbert", "sdpa", dynamo=True)
    export_by_transformers("bert")
