"""The snapshot on disk: JSON, refused where it was taken of another model."""

import json
from pathlib import Path

from ..drift import Snapshot, from_json, to_json
from ..errors import ModelError

_SHOWN = 12


def save(found: Snapshot, path: Path) -> None:
    """Write a snapshot."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(to_json(found)) + "\n", encoding="utf-8")


def load(path: Path) -> Snapshot:
    """Read a snapshot; `require` says whether it fits. Raises `ModelError`."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        return from_json(data if isinstance(data, dict) else {})
    except (OSError, ValueError) as error:
        message = (
            f"{path} holds no drift snapshot ({error}); make one with: "
            "rerank-plugins drift snapshot --dataset DIR --save FILE"
        )
        raise ModelError(message) from error


def require(found: Snapshot, subject: str, path: Path) -> None:
    """Refuse a snapshot of another subject than the models as they run. Raises `ModelError`."""
    if found.subject != subject:
        message = (
            f"the snapshot {path} was taken of {found.model} ({found.subject[:_SHOWN]}), and what "
            f"runs here is {subject[:_SHOWN]}: other weights, tokenizer, limits or stages. Its "
            "numbers do not hold here; make another with: rerank-plugins drift snapshot "
            "--dataset DIR --save FILE"
        )
        raise ModelError(message)
