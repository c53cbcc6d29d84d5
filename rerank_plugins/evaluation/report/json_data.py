"""Records as JSON knows them."""

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from enum import Enum
from pathlib import Path
from typing import TypeAlias

Json: TypeAlias = bool | int | float | str | list["Json"] | dict[str, "Json"] | None


def plain(value: object) -> Json:
    """Turn records into objects with their field names as keys; a decision code into its word.

    >>> plain((Path("a"), {1: 2.5}))
    ['a', {'1': 2.5}]
    """
    if isinstance(value, bool | int | float | str) or value is None:
        return value
    if isinstance(value, Enum):
        return plain(getattr(value, "code", value.value))
    if isinstance(value, Path):
        return str(value)
    if is_dataclass(value):
        return {one.name: plain(getattr(value, one.name)) for one in fields(value)}
    if isinstance(value, Mapping):
        return {str(key): plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [plain(one) for one in value]
    message = f"{type(value).__name__} has no JSON form"
    raise TypeError(message)
