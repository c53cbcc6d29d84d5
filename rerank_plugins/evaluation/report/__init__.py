"""An evaluation as a file: HTML with plots, Markdown, or JSON, by its suffix."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, is_dataclass
from enum import Enum
from pathlib import Path
from typing import TypeAlias

import numpy as np

from ...errors import InvalidRequest
from ..comparison import Comparison
from . import html, markdown

Json: TypeAlias = bool | int | float | str | list["Json"] | dict[str, "Json"] | None


def check(path: Path) -> None:
    """Refuse a path that no report can be written to. Raises `InvalidRequest`."""
    if path.suffix not in _WRITERS:
        raise InvalidRequest(
            f"{path} ends in {path.suffix!r}; expected one of {', '.join(_WRITERS)}"
        )
    if not path.parent.is_dir():
        raise InvalidRequest(f"{path.parent} is no folder; make it first, or report elsewhere")


def write(comparisons: Sequence[Comparison], path: Path) -> None:
    """Write the report; it needs no script, style, font or image from elsewhere."""
    check(path)
    path.write_text(_WRITERS[path.suffix](comparisons), encoding="utf-8")


def plain(value: object) -> Json:
    """Convert records to objects with their field names as keys; a decision code to its word.

    >>> plain((Path("a"), {1: 2.5}))
    ['a', {'1': 2.5}]
    """
    value = value.item() if isinstance(value, np.generic) else value
    if isinstance(value, bool | int | float | str) or value is None:
        return value
    if isinstance(value, Enum):
        return plain(getattr(value, "code", value.value))
    if isinstance(value, Path):
        return str(value)
    if is_dataclass(value):
        return {field.name: plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, Mapping):
        return {str(key): plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [plain(entry) for entry in value]
    raise TypeError(f"{type(value).__name__} has no JSON form")


def _json(comparisons: Sequence[Comparison]) -> str:
    return json.dumps({"comparisons": plain(comparisons)}, indent=1) + "\n"


_WRITERS: Mapping[str, Callable[[Sequence[Comparison]], str]] = {
    ".html": html.page,
    ".md": markdown.page,
    ".json": _json,
}
