"""Random sentence-transformers checkpoints of every kind, saved by it and exported to ONNX."""

import json
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
import transformers as hf
from numpy.typing import NDArray
from tokenizers import processors

from tests.scoring import decoders, families

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

BERT = {"hf": hf.BertConfig, "tokenizer": "bert"}
ROBERTA = {"hf": hf.XLMRobertaConfig, "tokenizer": "xlm-roberta"}
QWEN = {"hf": hf.Qwen3Config, "tokenizer": ""}
E5 = {"query": "query: ", "passage": "passage: ", "document": "passage: "}


@dataclass(frozen=True, slots=True)
class Kind:
    """How an encoder pools, what follows, and what precedes its texts."""

    name: str
    pooling: str | tuple[str, ...] = "mean"
    base: dict[str, object] = field(default_factory=lambda: BERT)
    dense: tuple[str, ...] = ()
    normalise: bool = True
    prompts: dict[str, str] = field(default_factory=dict)
    include_prompt: bool = True
    safe: bool = True
    similarity: str = "cosine"
    positions: bool = False


KINDS = (
    Kind("mean"),
    Kind("mean-dot", normalise=False, similarity="dot"),
    Kind("cls", "cls"),
    Kind("cls-prompts", "cls", ROBERTA, prompts=E5),
    Kind("max", "max"),
    Kind("last", "lasttoken", ROBERTA),
    Kind("joined", ("cls", "mean", "weightedmean"), normalise=False),
    Kind("sqrt", "mean_sqrt_len_tokens", dense=("Tanh",), similarity="dot", normalise=False),
    Kind("dense", "cls", dense=("Identity", "Tanh")),
    Kind("dense-bin", dense=("GELU", "ReLU"), safe=False),
    Kind("instructor", base=ROBERTA, prompts=E5, include_prompt=False),
    Kind(
        "decoder", "lasttoken", QWEN, prompts={"query": "Instruct: find\nQuery: ", "document": ""}
    ),
    Kind("decoder-positions", "lasttoken", QWEN, positions=True),
)


class _Rows(torch.nn.Module):
    """A model as a function of positional inputs, which the exporter takes."""

    def __init__(self, model: torch.nn.Module, names: Sequence[str]) -> None:
        super().__init__()
        self.model, self.names = model, names

    def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
        """Give the last layer's rows, [batch, length, width]."""
        return self.model(**dict(zip(self.names, inputs, strict=True))).last_hidden_state


def build(kind: Kind, folder: Path) -> "SentenceTransformer":
    """Save a random encoder and its graph; give it in torch."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return _build(kind, folder)


def vectors(
    model: "SentenceTransformer", texts: Sequence[str], *, query: bool
) -> NDArray[np.float32]:
    """Encode as sentence-transformers does."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        encode = model.encode_query if query else model.encode_document
        return encode(list(texts), show_progress_bar=False)


def _build(kind: Kind, folder: Path) -> "SentenceTransformer":
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.models import Dense, Normalize, Pooling, Transformer

    torch.manual_seed(sum(map(ord, kind.name)))
    base = folder.parent / f"{folder.name}-base"
    model = _base(kind, base)
    transformer = Transformer(str(base), max_seq_length=48)
    width = model.config.hidden_size
    pooling = Pooling(width, pooling_mode=kind.pooling, include_prompt=kind.include_prompt)
    parts = [transformer, pooling]
    size = pooling.pooling_output_dimension
    for activation in kind.dense:
        function = getattr(torch.nn, activation)()
        parts.append(Dense(size, size + 3, activation_function=function))
        size += 3
    if kind.normalise:
        parts.append(Normalize())
    made = SentenceTransformer(
        modules=parts,
        prompts=kind.prompts or None,
        similarity_fn_name=kind.similarity,
        device="cpu",
    )
    made.save(str(folder), create_model_card=False, safe_serialization=kind.safe)
    _export(kind, model, folder / "onnx" / "model.onnx")
    return made.eval()


def _base(kind: Kind, folder: Path) -> torch.nn.Module:
    if kind.base is QWEN:
        checkpoint = decoders.build(folder)
        tokenizer, model = checkpoint.tokenizer, checkpoint.model.model
        end = tokenizer.convert_tokens_to_ids("<|endoftext|>")
        tokenizer._tokenizer.post_processor = processors.TemplateProcessing(
            single="$A <|endoftext|>", pair=None, special_tokens=[("<|endoftext|>", end)]
        )
    else:
        named = kind.base["tokenizer"]
        family = next(one for one in families.FAMILIES if one.name == named)
        tokenizer = families._tokenizer(family)
        # By its name sentence-transformers knows what stands behind a prompt that is left out.
        tokenizer.sep_token = "[SEP]" if kind.base is BERT else "</s>"
        config = kind.base["hf"](vocab_size=families.VOCABULARY, **families.SHAPE, **family.more)
        model = hf.AutoModel.from_config(config)
        with torch.no_grad():
            for weight in model.parameters():
                weight.add_(torch.randn_like(weight) * 0.3)
    model.eval()
    model.set_attn_implementation("eager")
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return model


def _export(kind: Kind, model: torch.nn.Module, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    names = ["input_ids", "attention_mask"]
    if kind.base is BERT:
        names.append("token_type_ids")
    if kind.positions:
        names.append("position_ids")
    ids, mask = torch.randint(5, 40, (2, 9)), torch.ones(2, 9, dtype=torch.long)
    mask[1, 6:] = 0
    third = torch.arange(9).repeat(2, 1) if kind.positions else torch.zeros_like(ids)
    inputs = (ids, mask, third)[: len(names)]
    axes = {name: {0: "batch", 1: "length"} for name in (*names, "last_hidden_state")}
    torch.onnx.export(
        _Rows(model, names).eval(),
        inputs,
        str(path),
        input_names=names,
        output_names=["last_hidden_state"],
        dynamic_axes=axes,
        opset_version=17,
        dynamo=False,
    )


def pooled_copy(folder: Path, target: Path) -> Path:
    """Copy a folder with a graph that pools in itself: one unit vector for each text."""
    import shutil

    import onnx
    from onnx import TensorProto, helper, numpy_helper

    shutil.copytree(folder, target)
    path = target / "onnx" / "model.onnx"
    model = onnx.load(str(path))
    made = [
        helper.make_node("Cast", ["attention_mask"], ["p0"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["p0", "p_axis"], ["p1"]),
        helper.make_node("Mul", ["last_hidden_state", "p1"], ["p2"]),
        helper.make_node("ReduceSum", ["p2", "p_one"], ["sentence_embedding"], keepdims=0),
    ]
    model.graph.node.extend(made)
    model.graph.initializer.extend(
        numpy_helper.from_array(np.array([value], np.int64), name)
        for name, value in (("p_axis", 2), ("p_one", 1))
    )
    del model.graph.output[:]
    model.graph.output.append(
        helper.make_tensor_value_info("sentence_embedding", TensorProto.FLOAT, ["batch", None])
    )
    onnx.save(model, str(path))
    return target


def modules(folder: Path) -> list[dict[str, object]]:
    """Read a folder's list of modules."""
    return json.loads((folder / "modules.json").read_text())
