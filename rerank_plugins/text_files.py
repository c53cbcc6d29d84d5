"""Text files that people write: UTF-8, with or without a byte order mark."""

from collections.abc import Iterable, Iterator
from pathlib import Path

ENCODING = "utf-8-sig"
"""UTF-8 in which a byte order mark at the start is no part of the text."""


def read_text(path: Path) -> str:
    """Return a file's text, its lines ended by a line feed. Raises `OSError`, `UnicodeError`."""
    return path.read_text(encoding=ENCODING)


def read_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Yield the number and text of every line that is not blank. Raises as `read_text` does."""
    with path.open(encoding=ENCODING) as file:
        yield from numbered(file)


def numbered(lines: Iterable[str]) -> Iterator[tuple[int, str]]:
    """Yield the number and the stripped text of every line that is not blank.

    Lines are those of an open file, which end at a line feed alone: `str.splitlines` also breaks a
    passage at the separators and form feeds inside it.
    """
    for number, line in enumerate(lines, start=1):
        if text := line.strip():
            yield number, text
