"""A whole encoder layer in ONNX Runtime's fused operators."""

import numpy as np

from .emit import MICROSOFT, Emitter
from .layers import Layer


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
