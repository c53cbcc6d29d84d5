"""Give a model exits: name on its card where its graph is cut, and prove that nothing changes."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

from ...errors import ModelError
from ..exits.segmented_model import Trunk, heads_at
from ..models.files import EMBEDDED, SIDE_FILES, find
from .parity import Parity, of_segments

_CHECKPOINTS = ("*.safetensors", "pytorch_model*.bin")
# These are written anew.
_OURS = frozenset({"manifest.json", "card.json"})


def is_onnx(source: str) -> bool:
    """Tell whether a source is an ONNX model already, and no checkpoint."""
    path = Path(source).expanduser()
    if source == EMBEDDED or path.suffix == ".onnx":
        return True
    if not path.is_dir() or any(one for name in _CHECKPOINTS for one in path.glob(name)):
        return False
    return any(path.rglob("*.onnx"))


def copy(source: str, folder: Path) -> None:
    """Copy an ONNX model: graph, weights beside it, tokenizer, configuration, card.

    Raises `ModelError`.
    """
    import onnx
    from onnx.external_data_helper import ExternalDataInfo, uses_external_data

    files = find(source)
    graph = onnx.load(str(files.graph), load_external_data=False).graph
    beside = {ExternalDataInfo(t).location for t in graph.initializer if uses_external_data(t)}
    for name in sorted(beside):
        # A name with a path in it would be read, and written, outside the folders.
        if Path(name).name != name:
            message = f"{files.graph} keeps weights in {name[:80]!r}; expected a file beside it"
            raise ModelError(message)
    home = files.tokenizer.parent
    sides = [home / name for name in SIDE_FILES if name not in _OURS]
    for path in (files.graph, *(files.graph.parent / name for name in sorted(beside)), *sides):
        if path.is_file():
            shutil.copyfile(path, folder / path.name)
    if files.card:
        (folder / "card.json").write_text(json.dumps(files.card, indent=1) + "\n", encoding="utf-8")


def add_exits(folder: Path, layers: Sequence[int]) -> Parity:
    """Name exits after `layers` on the card of a model; compare its segments with the whole.

    Heads of the model's own stay its heads; the others compare tokens until they are calibrated.
    Raises `ConfigError` for layers it cannot be cut after, `ModelError` where scores would change.
    """
    files = find(folder)
    heads = heads_at(files, layers)
    parity = of_segments(Trunk(files, heads))
    exits = [
        {
            "layer": head.layer,
            "hidden": head.hidden,
            **({"output": head.output} if head.output else {}),
        }
        for head in heads
    ]
    text = json.dumps({**files.card, "exits": exits}, indent=1) + "\n"
    (folder / "card.json").write_text(text, encoding="utf-8")
    return parity
