"""Cut an encoder's graph between layers, into segments; each passes a hidden state to the next."""

from collections.abc import Sequence
from dataclasses import dataclass

from onnx import ModelProto, NodeProto, TensorProto, helper

from ....errors import ModelError

_IDS = "input_ids"
# Operators that read a value's size and not the value.
_SIZES = frozenset({"Shape", "Size", "ConstantOfShape"})

# Each layer has one of these, whatever the exporter and its fusions.
_ATTENTIONS = frozenset(
    {"Softmax", "Attention", "MultiHeadAttention", "GroupQueryAttention", "QAttention"}
)


@dataclass(frozen=True, slots=True)
class CutPoints:
    """Hidden states that a graph can be cut at: all data from tokens to scores passes through each.

    values: their names, in the order of the graph.
    layers: for each, how many attentions come before it.
    """

    values: tuple[str, ...]
    layers: tuple[int, ...]

    def after(self, layer: int) -> str:
        """Return the hidden state after a layer (0: the embeddings). Raises `ModelError`."""
        found = [v for v, count in zip(self.values, self.layers, strict=True) if count == layer]
        if not found:
            message = (
                f"no single hidden state after layer {layer}; this graph can be cut after layers "
                f"{sorted(set(self.layers))}"
            )
            raise ModelError(message)
        # After a layer's last cut point the next layer's queries, keys and values begin.
        return found[-1]


def cut_points(model: ModelProto, output: str) -> CutPoints:
    """Find where a graph can be cut on its paths from the embeddings to `output`.

    A value is a cut point if no earlier value on a path is read after it is computed. Masks and
    positions are no part of the paths: every segment computes them again from the token ids.
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
            layers.append(sum(attention <= place for attention in attentions))
        horizon = max(horizon, last_read.get(name, -1))
    return CutPoints(tuple(values), tuple(layers))


def segments(
    model: ModelProto, hidden: Sequence[str], outputs: Sequence[Sequence[str]]
) -> tuple[ModelProto, ...]:
    """Cut `model` at the values named `hidden`, into one segment more than there are cuts.

    Segment i reads `hidden[i - 1]` and the model's inputs that it needs; it returns `hidden[i]` and
    `outputs[i]`.
    """
    cuts = cut_points(model, outputs[-1][-1]).values
    made: list[ModelProto] = []
    for place, wanted in enumerate(outputs):
        before = hidden[place - 1] if place else None
        after = [hidden[place]] if place < len(hidden) else []
        made.append(_segment(model, before, [*after, *wanted], cuts))
    return tuple(made)


def _embeddings(nodes: Sequence[NodeProto]) -> str:
    """Return the looked-up embeddings of the token ids, or the ids where there is no look-up."""
    ids = {_IDS}
    for node in nodes:
        if node.op_type in {"Cast", "Identity"} and node.input[0] in ids:
            ids.add(node.output[0])
        elif node.op_type == "Gather" and node.input[1] in ids:
            return str(node.output[0])
    return _IDS


def _segment(
    model: ModelProto, before: str | None, outputs: Sequence[str], cuts: Sequence[str]
) -> ModelProto:
    nodes = list(model.graph.node)
    if before is not None:
        nodes = [_resized(node, before, cuts) for node in nodes]
    needed = _backwards(nodes, outputs, stop=before)
    kept = [node for node in nodes if needed & set(node.output) and before not in node.output]
    inputs = [info for info in model.graph.input if info.name in needed]
    if before is not None:
        inputs.append(helper.make_tensor_value_info(before, TensorProto.FLOAT, None))
    graph = helper.make_graph(
        kept,
        model.graph.name,
        inputs,
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
        [tensor for tensor in model.graph.initializer if tensor.name in needed],
    )
    return helper.make_model(
        graph, opset_imports=list(model.opset_import), ir_version=model.ir_version
    )


def _resized(node: NodeProto, before: str, cuts: Sequence[str]) -> NodeProto:
    """Read the size of the passed hidden state where the size of an earlier one was read."""
    earlier = cuts[: cuts.index(before)] if before in cuts else ()
    if node.op_type != "Shape" or node.input[0] not in earlier:
        return node
    copy = NodeProto()
    copy.CopyFrom(node)
    copy.input[0] = before
    return copy


def _backwards(
    nodes: Sequence[NodeProto], outputs: Sequence[str], *, stop: str | None = None
) -> set[str]:
    """Return every value that `outputs` need, without those that only `stop` needs."""
    needed = set(outputs)
    for node in reversed(nodes):
        if needed & set(node.output) and stop not in node.output:
            needed |= set(node.input)
    return needed
