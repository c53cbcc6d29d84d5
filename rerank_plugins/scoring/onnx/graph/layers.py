"""New nodes for a recognised layer: with fused operators, or for the first row alone."""

import numpy as np

from .emit import MICROSOFT, Emitter
from .recognise import Layer


def absorb(emitter: Emitter, layer: Layer, mask_bias: str) -> None:
    """Emit row 0 of a layer, [batch, 1, hidden].

    `mask_bias` names what is added to the scores, [batch, 1, length].
    """
    attention = layer.attention
    heads, width = attention.heads, attention.query.weight.shape[1]
    size, hidden = width // heads, layer.hidden
    scale = np.float32(1.0 / np.sqrt(size))
    first = emitter.node(
        "Slice", [layer.source, emitter.tensor([0]), emitter.tensor([1]), emitter.tensor([1])]
    )
    query = emitter.node(
        "Add",
        [
            emitter.node("MatMul", [first, emitter.tensor(attention.query.weight * scale)]),
            emitter.tensor(attention.query.bias * scale),
        ],
    )
    by_head = emitter.node("Reshape", [query, emitter.tensor([0, heads, 1, size])])
    keys = attention.key.weight.reshape(hidden, heads, size).transpose(1, 2, 0)
    wanted = emitter.node("MatMul", [by_head, emitter.tensor(keys)])
    wanted = emitter.node("Reshape", [wanted, emitter.tensor([0, heads, hidden])])
    scores = emitter.node(
        "FusedMatMul", [wanted, layer.source], domain=MICROSOFT, settings={"transB": 1}
    )
    shares = emitter.node(
        "Softmax", [emitter.node("Add", [scores, mask_bias])], settings={"axis": -1}
    )
    mixed = emitter.node("MatMul", [shares, layer.source])
    mixed = emitter.node("Reshape", [mixed, emitter.tensor([0, heads, 1, hidden])])
    values = attention.value.weight.reshape(hidden, heads, size).transpose(1, 0, 2)
    context = emitter.node("MatMul", [mixed, emitter.tensor(values)])
    context = emitter.node("Reshape", [context, emitter.tensor([0, 1, width])])
    context = emitter.node("Add", [context, emitter.tensor(attention.value.bias)])
    out = emitter.product(context, layer.out)
    feed_forward(emitter, layer, emitter.residual_norm(out, first, layer.out, layer.norm_1))


def fuse(emitter: Emitter, layer: Layer, mask: str) -> None:
    """Emit a layer; `mask` names the attention mask, int32 [batch, length]."""
    attention = layer.attention
    parts = (attention.query, attention.key, attention.value)
    context = emitter.node(
        "Attention",
        [
            layer.source,
            emitter.tensor(np.concatenate([part.weight for part in parts], axis=1)),
            emitter.tensor(np.concatenate([part.bias for part in parts])),
            *(["", "", attention.bias] if attention.bias else [mask]),
        ],
        domain=MICROSOFT,
        settings={"num_heads": attention.heads},
    )
    mixed = emitter.product(context, layer.out)
    middle = emitter.residual_norm(mixed, layer.source, layer.out, layer.norm_1)
    feed_forward(emitter, layer, middle)


def feed_forward(emitter: Emitter, layer: Layer, middle: str) -> None:
    """Emit the second half of a layer, whose output keeps its name."""
    active = emitter.activate(
        emitter.product(middle, layer.wide), layer.wide.bias, layer.activation
    )
    narrow = emitter.product(active, layer.narrow)
    emitter.residual_norm(narrow, middle, layer.narrow, layer.norm_2, output=layer.output)
