"""Read a graph with its weights, from one file or two."""

from pathlib import Path, PurePosixPath

import onnx


def load(path: Path) -> onnx.ModelProto:
    """Read a graph and the weights in its sidecar, which may be a link, as in the hub's cache.

    `onnx.load` refuses links. Raises `ValueError` for a sidecar outside the graph's folder.
    """
    model = onnx.load(str(path), load_external_data=False)
    for tensor in model.graph.initializer:
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            _fill(tensor, path.parent)
    return model


def _fill(tensor: onnx.TensorProto, folder: Path) -> None:
    facts = {entry.key: entry.value for entry in tensor.external_data}
    place = PurePosixPath(facts["location"])
    if place.is_absolute() or ".." in place.parts:
        message = f"weights lie at {place}; expected a file beside the graph"
        raise ValueError(message)
    with (folder / place).open("rb") as file:
        file.seek(int(facts.get("offset", 0)))
        tensor.raw_data = file.read(int(facts["length"]) if "length" in facts else -1)
    del tensor.external_data[:]
    tensor.data_location = onnx.TensorProto.DEFAULT
