"""Files of passages, queries and labels: plain lines, JSON lines, JSON, CSV and TSV."""

import csv
import json
import math
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain
from pathlib import Path
from typing import TypeAlias

from .. import text_files
from ..errors import InvalidRequest

_JSON_LINES = frozenset({".jsonl", ".ndjson"})
_SEPARATORS: Mapping[str, str] = {".csv": ",", ".tsv": "\t"}
TABLES = frozenset({*_JSON_LINES, ".json", *_SEPARATORS})
"""Suffixes of files that hold rows with named columns."""
_FORMATS = "plain text with one a line, .jsonl or .ndjson, .json, .csv or .tsv"
# Read as lines, these would be passages of markup.
_MARKUP = frozenset({".htm", ".html", ".toml", ".xml", ".yaml", ".yml"})

Row: TypeAlias = Mapping[str, object]


def is_table(path: Path) -> bool:
    """True if a file's suffix, in any case, says that it holds rows with named columns."""
    return path.suffix.lower() in TABLES


def is_json_lines(path: Path) -> bool:
    """True if a file's suffix, in any case, says that it holds JSON lines."""
    return path.suffix.lower() in _JSON_LINES


def read_rows(path: Path) -> Iterator[tuple[int, Row]]:
    """Yield the number and the columns of every row; a line of plain text is {"text": line}.

    Raises `InvalidRequest`.
    """
    suffix = path.suffix.lower()
    if suffix in _MARKUP:
        raise InvalidRequest(f"{path} is a {suffix} file; expected {_FORMATS}")
    if suffix in _SEPARATORS:
        return _csv_rows(path, _SEPARATORS[suffix])
    if suffix == ".json":
        return _json_rows(path)
    return read_jsonl(path) if suffix in _JSON_LINES else rows_of(path, read_lines(path))


def rows_of(name: object, lines: Iterator[tuple[int, str]]) -> Iterator[tuple[int, Row]]:
    """Yield the rows of a text: of JSON lines, if its first line is an object, else of lines.

    Raises `InvalidRequest`.
    """
    first = next(lines, None)
    if first is None:
        return iter(())
    lines = chain([first], lines)
    if _is_object(first[1]):
        return _json_lines(name, lines)
    return ((number, {"text": line}) for number, line in lines)


def read_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Yield the number and text of every line that is not blank. Raises `InvalidRequest`."""
    try:
        yield from text_files.read_lines(path)
    except (OSError, UnicodeError) as error:
        raise _unreadable(path, error) from error


def read_jsonl(path: Path) -> Iterator[tuple[int, Row]]:
    """Yield the number and object of every line that is not blank. Raises `InvalidRequest`."""
    return _json_lines(path, read_lines(path))


def number_of(value: object, place: str, name: str) -> float | None:
    """Return a number, also one that a string holds; None for none. Raises `InvalidRequest`.

    >>> number_of("2.5", "passages.jsonl:1", "prior"), number_of("", "passages.csv:2", "prior")
    (2.5, None)
    """
    if value is None or (isinstance(value, str) and not value.strip()):
        return None
    try:
        if isinstance(value, str | int | float) and not isinstance(value, bool):
            number = float(value)
            if math.isfinite(number):
                return number
    except (ValueError, OverflowError):
        pass
    raise InvalidRequest(
        f"{place} has the {name} {str(value)[:40]!r}; expected a number, or nothing"
    )


def text_of(value: object, place: str, name: str) -> str:
    """Return a text, "" where it is missing. Raises `InvalidRequest` for what is no text."""
    if value is None or isinstance(value, str | int | float):
        return "" if value is None else str(value)
    raise InvalidRequest(f"{place}: {name} is a {type(value).__name__}; expected text")


def _unreadable(path: Path, error: Exception) -> InvalidRequest:
    return InvalidRequest(f"{path} cannot be read: {error}; expected a text file in UTF-8")


def _is_object(line: str) -> bool:
    try:
        return line.startswith("{") and isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        return False


def _json_lines(name: object, lines: Iterable[tuple[int, str]]) -> Iterator[tuple[int, Row]]:
    for number, line in lines:
        try:
            value = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise InvalidRequest(
                f"{name}:{number} is not JSON ({error}); expected one object a line"
            ) from error
        if not isinstance(value, dict):
            raise InvalidRequest(
                f"{name}:{number} holds a {type(value).__name__}; expected an object"
            )
        yield number, value


def _json_rows(path: Path) -> Iterator[tuple[int, Row]]:
    """Yield the rows of a list of objects or texts; JSON lines are often called .json as well."""
    try:
        value = json.loads(text_files.read_text(path))
    except (OSError, UnicodeError) as error:
        raise _unreadable(path, error) from error
    except (ValueError, RecursionError) as error:
        if _is_object(next(read_lines(path), (0, ""))[1]):
            yield from read_jsonl(path)
            return
        raise InvalidRequest(f"{path} is not JSON ({error}); expected a list of objects") from error
    for number, item in enumerate(value if isinstance(value, list) else [value], start=1):
        row = {"text": item} if isinstance(item, str) else item
        if not isinstance(row, dict):
            raise InvalidRequest(
                f"{path}, item {number} is a {type(item).__name__}; expected a list of objects or "
                "texts"
            )
        yield number, row


def _csv_rows(path: Path, separator: str) -> Iterator[tuple[int, Row]]:
    number = 1
    try:
        with path.open(encoding=text_files.ENCODING, newline="") as file:
            for number, row in enumerate(csv.DictReader(file, delimiter=separator), start=2):
                if None in row:
                    raise InvalidRequest(
                        f"{path}:{number} has more fields than the header names; put texts that "
                        f"hold {separator!r} between quotes"
                    )
                yield number, row
    except (OSError, UnicodeError, csv.Error) as error:
        raise InvalidRequest(
            f"{path} cannot be read: {error}; expected {path.suffix} with a header, in UTF-8"
        ) from error
    if number == 1:
        raise InvalidRequest(f"{path} holds no row below its first line; expected a header, rows")
