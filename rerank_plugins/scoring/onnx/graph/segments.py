"""Cut an encoder's graph between layers, into segments that hand a hidden state on."""

from collections.abc import Sequence
from dataclasses import dataclass

from onnx import ModelProto, NodeProto, TensorProto, helper

from ....errors import ModelError

_IDS = "input_ids"
# Operators that pass on a value's size and not the value.
_SIZES = frozenset({"Shape", "Size", "ConstantOfShape"})

# One of these per layer, whatever the exporter and its fusions.
_ATTENTIONS = frozenset(
    {"Softmax", "Attention", "MultiHeadAttention", "GroupQueryAttention", "QAttention"}
)


@dataclass(frozen=True, slots=True)
class Narrows:
    """Values that all data on its way from the token ids to the scores passes through.

    `values` come in the order of the graph; `layers` counts the attentions before each.
    """

    values: tuple[str, ...]
    layers: tuple[int, ...]

    def after(self, layer: int) -> str:
        """Name the hidden state after a layer (0: the embeddings). Raises `ModelError`."""
        found = [v for v, count in zip(self.values, self.layers, strict=True) if count == layer]
        if not found:
            message = (
                f"no single hidden state after layer {layer}; this graph can be cut after layers "
                f"{sorted(set(self.layers))}"
            )
            raise ModelError(message)
        # Behind the last narrow place of a layer its successor's queries, keys and values part.
        return found[-1]


def narrows(model: ModelProto, output: str) -> Narrows:
    """Find where a graph can be cut: values without which no path reaches `output`.

    A value is one if no earlier value on such a path is still read after it is made. Paths start at
    the looked-up embeddings: masks and positions are made from the ids anew in every segment.
    """
    nodes = list(model.graph.node)
    useful = _backwards(nodes, [output])
    start = _embeddings(nodes)
    on_path: set[str] = {start}
    made: list[tuple[int, str]] = [(-1, start)]
    last_read: dict[str, int] = {}
    attentions: list[int] = []
    for place, node in enumerate(nodes):
        if node.op_type in _SIZES or not on_path & set(node.input):
            continue
        outputs = [name for name in node.output if name in useful]
        if not outputs:
            continue
        for name in on_path & set(node.input):
            last_read[name] = place
        on_path |= set(outputs)
        made += [(place, name) for name in outputs]
        if node.op_type in _ATTENTIONS:
            attentions.append(place)
    values: list[str] = []
    layers: list[int] = []
    horizon = -1
    for place, name in made:
        if name not in {start, output} and horizon <= place:
            values.append(name)
            layers.append(sum(one <= place for one in attentions))
        horizon = max(horizon, last_read.get(name, -1))
    return Narrows(tuple(values), tuple(layers))


def _embeddings(nodes: Sequence[NodeProto]) -> str:
    """Name the embeddings that the token ids are looked up to, or the ids if none are."""
    ids = {_IDS}
    for node in nodes:
        if node.op_type in {"Cast", "Identity"} and node.input[0] in ids:
            ids.add(node.output[0])
        elif node.op_type == "Gather" and node.input[1] in ids:
            return str(node.output[0])
    return _IDS


def segments(
    model: ModelProto, hidden: Sequence[str], outputs: Sequence[Sequence[str]]
) -> tuple[ModelProto, ...]:
    """Cut `model` at the values named `hidden`; segment i gives `outputs[i]` and its hidden state.

    There is one segment more than there are cuts. A segment takes the hidden state before it, and
    of the model's inputs those that it needs.
    """
    narrow = narrows(model, outputs[-1][-1]).values
    made: list[ModelProto] = []
    for place, wanted in enumerate(outputs):
        before = hidden[place - 1] if place else None
        after = [hidden[place]] if place < len(hidden) else []
        made.append(_segment(model, before, [*after, *wanted], narrow))
    return tuple(made)


def _segment(
    model: ModelProto, before: str | None, outputs: Sequence[str], narrow: Sequence[str]
) -> ModelProto:
    nodes = list(model.graph.node)
    if before is not None:
        nodes = [_resized(node, before, narrow) for node in nodes]
    needed = _backwards(nodes, outputs, stop=before)
    kept = [node for node in nodes if needed & set(node.output) and before not in node.output]
    inputs = [one for one in model.graph.input if one.name in needed]
    if before is not None:
        inputs.append(helper.make_tensor_value_info(before, TensorProto.FLOAT, None))
    graph = helper.make_graph(
        kept,
        model.graph.name,
        inputs,
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
        [one for one in model.graph.initializer if one.name in needed],
    )
    return helper.make_model(
        graph, opset_imports=list(model.opset_import), ir_version=model.ir_version
    )


def _resized(node: NodeProto, before: str, narrow: Sequence[str]) -> NodeProto:
    """Let a size that was taken of an earlier hidden state be taken of the one handed over."""
    earlier = narrow[: narrow.index(before)] if before in narrow else ()
    if node.op_type != "Shape" or node.input[0] not in earlier:
        return node
    copy = NodeProto()
    copy.CopyFrom(node)
    copy.input[0] = before
    return copy


def _backwards(
    nodes: Sequence[NodeProto], outputs: Sequence[str], *, stop: str | None = None
) -> set[str]:
    """Collect every value that `outputs` need, not looking behind `stop`."""
    needed = set(outputs)
    for node in reversed(nodes):
        if needed & set(node.output) and stop not in node.output:
            needed |= set(node.input)
    return needed
