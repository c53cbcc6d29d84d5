"""An evaluation as a file: HTML with plots, Markdown, or JSON, by its suffix."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from ...errors import InvalidRequest
from ..comparison import Comparison
from . import html, markdown
from .json_data import plain

_WRITERS: Mapping[str, Callable[[Sequence[Comparison]], str]] = {
    ".html": html.page,
    ".md": markdown.page,
    ".json": lambda comparisons: json.dumps({"comparisons": plain(comparisons)}, indent=1) + "\n",
}


def check(path: Path) -> None:
    """Refuse a path that no report can be written to. Raises `InvalidRequest`."""
    if path.suffix not in _WRITERS:
        message = f"{path} ends in {path.suffix!r}; expected one of {', '.join(_WRITERS)}"
        raise InvalidRequest(message)
    if not path.parent.is_dir():
        message = f"{path.parent} is no folder; make it first, or report elsewhere"
        raise InvalidRequest(message)


def write(comparisons: Sequence[Comparison], path: Path) -> None:
    """Write the report; it stands alone: no script, style, font or image from elsewhere."""
    check(path)
    path.write_text(_WRITERS[path.suffix](comparisons), encoding="utf-8")
