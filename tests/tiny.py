"""A BERT cross-encoder of a few kB, made on the spot: real graph, real tokenizer, random weights.

It runs in microseconds, needs no torch, and can be made wrong in the ways that models in the field
are wrong. The weights come from a fixed seed, so its scores are the same everywhere.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
WORDS = [
    "a",
    "the",
    "is",
    "of",
    "in",
    "and",
    "to",
    "red",
    "blue",
    "fox",
    "hen",
    "dog",
    "cat",
    "tree",
    "house",
    "river",
    "what",
    "where",
    "who",
    "monoid",
    "ring",
    "group",
    "field",
    "apple",
    "pear",
    "plum",
    "quick",
    "lazy",
    "brown",
    "jumps",
    "over",
    "under",
    "passage",
    "number",
    "long",
    "short",
    "nan",
]
# "a" is a word already.
LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789"
VOCABULARY = (*SPECIAL, *WORDS, *LETTERS[1:], *(f"##{letter}" for letter in LETTERS))
HIDDEN, HEADS = 16, 2
SEED = 11


@dataclass(frozen=True, slots=True)
class Shape:
    """What a tiny model looks like.

    `poison` gives the word "nan" an embedding that is not a number. `inputs` are what the graph
    declares. `rank` is the number of axes of the output: 3 is an encoder without a head.
    """

    columns: int = 1
    positions: int = 128
    inputs: tuple[str, ...] = ("input_ids", "attention_mask", "token_type_ids")
    half_output: bool = False
    rank: int = 2
    poison: bool = False
    static_batch: bool = False
    pad_id: int = 0
    seed: int = SEED


def build(folder: Path, shape: Shape | None = None, *, graph: str = "model.onnx") -> Path:
    """Write a tiny model in the layout of the Hugging Face hub; give its folder."""
    shape = shape or Shape()
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / graph
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(model(shape), path)
    tokenizer().save(str(folder / "tokenizer.json"))
    config = {
        "model_type": "bert",
        "max_position_embeddings": shape.positions,
        "pad_token_id": shape.pad_id,
    }
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "tokenizer_config.json").write_text(json.dumps({"model_max_length": shape.positions}))
    return folder


def tokenizer() -> Tokenizer:
    """Make a WordPiece tokenizer with BERT's pair template."""
    ids = {word: number for number, word in enumerate(VOCABULARY)}
    made = Tokenizer(models.WordPiece(ids, unk_token="[UNK]"))
    made.normalizer = normalizers.BertNormalizer(lowercase=True)
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    made.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    made.add_special_tokens(list(SPECIAL))
    return made


class _Net:
    """Collects nodes and weights."""

    def __init__(self, seed: int) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []
        self.random = np.random.default_rng(seed)

    def weight(self, array: NDArray[np.generic]) -> str:
        """Add a constant; give its name."""
        name = f"w{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(np.asarray(array), name))
        return name

    def normal(self, *shape: int, scale: float = 0.5) -> str:
        """Add a random matrix."""
        return self.weight(self.random.normal(0.0, scale, shape).astype(np.float32))

    def ints(self, *values: int) -> str:
        """Add a list of integers."""
        return self.weight(np.array(values, dtype=np.int64))

    def node(self, kind: str, *inputs: str, **attributes: object) -> str:
        """Add an operator; give its output's name."""
        name = f"n{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [name], **attributes))
        return name

    def linear(self, x: str, size: int, to: int) -> str:
        """Add x W + b."""
        return self.node("Add", self.node("MatMul", x, self.normal(size, to)), self.normal(to))

    def norm(self, x: str) -> str:
        """Add a layer norm over the last axis."""
        ones, zeros = np.ones(HIDDEN, np.float32), np.zeros(HIDDEN, np.float32)
        return self.node("LayerNormalization", x, self.weight(ones), self.weight(zeros), axis=-1)

    def heads(self, x: str) -> str:
        """Split [b, t, h] into [b, heads, t, h / heads]."""
        shaped = self.node("Reshape", x, self.ints(0, 0, HEADS, HIDDEN // HEADS))
        return self.node("Transpose", shaped, perm=[0, 2, 1, 3])


def model(shape: Shape) -> onnx.ModelProto:
    """Build the graph: embeddings, one layer, pooler, head."""
    net = _Net(shape.seed)
    hidden = _layer(net, _embeddings(net, shape), _bias(net, shape))
    if shape.rank == 3:
        out = hidden
    else:
        first = net.node("Gather", hidden, net.weight(np.array(0, np.int64)), axis=1)
        pooled = net.node("Tanh", net.linear(first, HIDDEN, HIDDEN))
        out = net.node("Mul", net.linear(pooled, HIDDEN, shape.columns), net.normal(1, scale=4.0))
        if shape.rank == 1:
            out = net.node("Squeeze", out, net.ints(1))
    kind = TensorProto.FLOAT
    if shape.half_output:
        kind = TensorProto.FLOAT16
        out = net.node("Cast", out, to=kind)
    net.nodes.append(helper.make_node("Identity", [out], ["logits"]))
    batch: str | int = 1 if shape.static_batch else "batch"
    axes: list[str | int | None] = [batch, shape.columns, HIDDEN][: shape.rank]
    if shape.rank == 3:
        axes[1] = "tokens"
    graph = helper.make_graph(
        net.nodes,
        "tiny",
        [
            helper.make_tensor_value_info(name, TensorProto.INT64, [batch, "tokens"])
            for name in shape.inputs
        ],
        [helper.make_tensor_value_info("logits", kind, axes)],
        net.weights,
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(made)
    return made


def _embeddings(net: _Net, shape: Shape) -> str:
    words = net.random.normal(0.0, 1.0, (len(VOCABULARY), HIDDEN)).astype(np.float32)
    if shape.poison:
        words[VOCABULARY.index("nan")] = np.nan
    total = net.node("Gather", net.weight(words), "input_ids")
    table = net.normal(shape.positions, HIDDEN)
    if "position_ids" in shape.inputs:
        places = net.node("Gather", table, "position_ids")
    else:
        # A Slice of the table would stop quietly at its end; a Gather fails beyond it.
        zeros = net.node("Mul", "input_ids", net.weight(np.array(0, np.int64)))
        ones = net.node("Add", zeros, net.weight(np.array(1, np.int64)))
        counted = net.node("CumSum", ones, net.weight(np.array(1, np.int64)), exclusive=1)
        places = net.node("Gather", table, counted)
    total = net.node("Add", total, places)
    if "token_type_ids" in shape.inputs:
        kinds = net.node("Gather", net.normal(2, HIDDEN), "token_type_ids")
        total = net.node("Add", total, kinds)
    return net.norm(total)


def _bias(net: _Net, shape: Shape) -> str | None:
    if "attention_mask" not in shape.inputs:
        return None
    mask = net.node("Cast", "attention_mask", to=TensorProto.FLOAT)
    lack = net.node("Sub", mask, net.weight(np.array(1.0, np.float32)))
    wide = net.node("Unsqueeze", lack, net.ints(1, 2))
    return net.node("Mul", wide, net.weight(np.array(1e9, np.float32)))


def _layer(net: _Net, x: str, bias: str | None) -> str:
    query, key, value = (net.heads(net.linear(x, HIDDEN, HIDDEN)) for _ in range(3))
    scores = net.node("MatMul", query, net.node("Transpose", key, perm=[0, 1, 3, 2]))
    scores = net.node("Mul", scores, net.weight(np.array((HEADS / HIDDEN) ** 0.5, np.float32)))
    if bias is not None:
        scores = net.node("Add", scores, bias)
    mixed = net.node("MatMul", net.node("Softmax", scores, axis=-1), value)
    joined = net.node("Transpose", mixed, perm=[0, 2, 1, 3])
    joined = net.node("Reshape", joined, net.ints(0, 0, HIDDEN))
    x = net.norm(net.node("Add", x, net.linear(joined, HIDDEN, HIDDEN)))
    inner = net.node("Relu", net.linear(x, HIDDEN, 2 * HIDDEN))
    return net.norm(net.node("Add", x, net.linear(inner, 2 * HIDDEN, HIDDEN)))


def passages(count: int, *, seed: int = 3, longest: int = 60) -> list[str]:
    """Make distinct passages of the model's words, of very different lengths."""
    random = np.random.default_rng(seed)
    words: Sequence[str] = WORDS[:-1]
    out: dict[str, None] = {}
    while len(out) < count:
        length = int(np.clip(random.lognormal(2.5, 0.8), 3, longest))
        out[" ".join(random.choice(words, length))] = None
    return list(out)


def cache(root: Path, repo: str, folder: Path, *, commit: str = "c" * 40) -> Path:
    """Lay a model folder out as huggingface-hub caches it: blobs, and a snapshot of links."""
    home = root / f"models--{repo.replace('/', '--')}"
    (home / "refs").mkdir(parents=True)
    (home / "refs" / "main").write_text(commit)
    blobs = home / "blobs"
    blobs.mkdir()
    for number, path in enumerate(sorted(one for one in folder.rglob("*") if one.is_file())):
        blob = blobs / f"{number:040x}"
        blob.write_bytes(path.read_bytes())
        link = home / "snapshots" / commit / path.relative_to(folder)
        link.parent.mkdir(parents=True, exist_ok=True)
        up = "../" * (len(link.relative_to(home).parts) - 1)
        link.symlink_to(f"{up}blobs/{blob.name}")
    return home / "snapshots" / commit
