"""The last layer for the first row alone, keys and values absorbed into that row's side.

Where only row 0 of the last layer is read, per head with query q and input rows X:
scores = X (Wk q) / sqrt(d) (the key's bias adds the same to all, and the softmax cancels it),
context = (softmax(scores) X) Wv + bv. Keys and values of all rows are never formed: two products
of H x d and two of length x H replace 2 x length x H^2, and everything behind them runs on one row.
"""

import numpy as np

from .emit import MICROSOFT, Emitter
from .fuse import feed_forward
from .layers import Layer


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
