"""Text files that people write: UTF-8, with or without a byte order mark."""

from collections.abc import Iterator
from pathlib import Path

ENCODING = "utf-8-sig"
"""UTF-8 in which a byte order mark at the start is no part of the text."""


def read_text(path: Path) -> str:
    """Return a file's text, its lines ended by a line feed. Raises `OSError`, `UnicodeError`."""
    return path.read_text(encoding=ENCODING)


def lines(text: str) -> Iterator[tuple[int, str]]:
    r"""Yield the number and the stripped text of every line that is not blank.

    A line ends at a line feed alone: `str.splitlines` also breaks a passage at the separators and
    form feeds inside it.

    >>> list(lines("a\u2028b\n\nc"))
    [(1, 'a\u2028b'), (3, 'c')]
    """
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            yield number, line.strip()
