"""Add exits to a model: its card names where its graph is cut; scores are proved unchanged."""

import json
from collections.abc import Sequence
from pathlib import Path

from ...errors import ModelError
from ..exits.segmented_model import SegmentedModel, heads_at
from ..models.content import read
from ..models.files import EMBEDDED, SIDE_FILES, ModelFiles, find, located
from .parity import Parity, of_segments

_CHECKPOINTS = ("*.safetensors", "pytorch_model*.bin")


def is_onnx(source: str) -> bool:
    """True if a source is an ONNX model and not a checkpoint."""
    path = located(source)
    if source == EMBEDDED or path.suffix == ".onnx":
        return True
    if not path.is_dir() or any(file for name in _CHECKPOINTS for file in path.glob(name)):
        return False
    return any(path.rglob("*.onnx"))


def copy(source: str, folder: Path) -> None:
    """Copy an ONNX model: graph, weights beside it, tokenizer, configuration, card.

    Raises `ModelError`.
    """
    files = find(source)
    for path in files.graph_file.files:
        if path.parent != files.graph.parent:
            message = f"{files.graph} keeps weights in {path}; expected a file beside it"
            raise ModelError(message)
        (folder / path.name).write_bytes(read(path, files.listed))
    copy_sides(files, folder)


def copy_sides(files: ModelFiles, folder: Path) -> None:
    """Copy a model's tokenizer, configuration and card."""
    for name in SIDE_FILES:
        source = files.tokenizer.parent / name
        if name != "manifest.json" and source.is_file():
            (folder / name).write_bytes(read(source, files.listed))


def add_exits(folder: Path, layers: Sequence[int]) -> Parity:
    """Write exits after `layers` to a model's card; compare its segments with the whole graph.

    Exits use the model's own heads; those without one compare tokens until they are calibrated.
    Raises `ConfigError` for layers it cannot be cut after, `ModelError` where scores would change.
    """
    files = find(folder)
    heads = heads_at(files, layers)
    parity = of_segments(SegmentedModel(files, heads))
    exits = [
        {"layer": head.layer, "hidden": head.hidden}
        | ({"output": head.output} if head.output else {})
        for head in heads
    ]
    text = json.dumps({**files.card, "exits": exits}, indent=1) + "\n"
    (folder / "card.json").write_text(text, encoding="utf-8")
    return parity
