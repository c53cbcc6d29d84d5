"""New nodes for a recognised layer: the whole layer with fused operators, or only its first row."""

import numpy as np

from .emit import MICROSOFT, Emitter
from .recognise import Layer


def emit_layer(emitter: Emitter, layer: Layer, mask: str) -> None:
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
    _emit_rest(emitter, layer, context, layer.source)


def emit_first_row(emitter: Emitter, layer: Layer, mask_bias: str) -> None:
    """Emit row 0 of a layer, [batch, 1, hidden], with keys and values multiplied in last.

    `mask_bias` names what is added to the scores, [batch, 1, length].
    """
    attention, emit, store = layer.attention, emitter.node, emitter.tensor
    heads, width = attention.heads, attention.query.weight.shape[1]
    size, hidden = width // heads, layer.hidden
    scale = np.float32(1.0 / np.sqrt(size))
    first = emit("Slice", [layer.source, store([0]), store([1]), store([1])])
    query = emit("MatMul", [first, store(attention.query.weight * scale)])
    query = emit("Add", [query, store(attention.query.bias * scale)])
    query = emit("Reshape", [query, store([0, heads, 1, size])])
    keys = attention.key.weight.reshape(hidden, heads, size).transpose(1, 2, 0)
    query = emit("MatMul", [query, store(keys)])
    query = emit("Reshape", [query, store([0, heads, hidden])])
    scores = emit("FusedMatMul", [query, layer.source], domain=MICROSOFT, settings={"transB": 1})
    scores = emit("Add", [scores, mask_bias])
    weights = emit("Softmax", [scores], settings={"axis": -1})
    mixed = emit("MatMul", [weights, layer.source])
    mixed = emit("Reshape", [mixed, store([0, heads, 1, hidden])])
    values = attention.value.weight.reshape(hidden, heads, size).transpose(1, 0, 2)
    context = emit("MatMul", [mixed, store(values)])
    context = emit("Reshape", [context, store([0, 1, width])])
    context = emit("Add", [context, store(attention.value.bias)])
    _emit_rest(emitter, layer, context, first)


def _emit_rest(emitter: Emitter, layer: Layer, context: str, residual: str) -> None:
    """Emit what follows the attention; the layer's output keeps its name."""
    out = emitter.product(context, layer.out)
    middle = emitter.residual_norm(out, residual, layer.out, layer.norm_1)
    wide = emitter.product(middle, layer.wide)
    active = emitter.activate(wide, layer.wide.bias, layer.activation)
    narrow = emitter.product(active, layer.narrow)
    emitter.residual_norm(narrow, middle, layer.narrow, layer.norm_2, output=layer.output)
