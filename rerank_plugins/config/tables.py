"""What all settings are made of: kinds of values, tables, and records filled from tables."""

from collections.abc import Callable, Mapping
from dataclasses import fields
from pathlib import Path, PurePath
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated, TypeAlias, TypeVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationInfo

from ..scoring.models.files import EMBEDDED, LEXICAL

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Positive: TypeAlias = Annotated[int, Field(ge=1)]
Count: TypeAlias = Annotated[int, Field(ge=0)]
Seconds: TypeAlias = Annotated[float, Field(gt=0.0)]
Share: TypeAlias = Annotated[float, Field(ge=0.0, le=1.0)]
Chance: TypeAlias = Annotated[float, Field(gt=0.0, lt=1.0)]

FOLDER = "folder"
"""The key of a validation context under which stands the folder that paths are relative to."""


def beside_file(path: Path, info: ValidationInfo) -> Path:
    """Return a path of a settings file, relative to that file; other settings' as they are."""
    folder: Path | None = (info.context or {}).get(FOLDER)
    if folder is None or path.is_absolute() or str(path).startswith("~"):
        return path
    return folder / path


def model_beside_file(name: str, info: ValidationInfo) -> str:
    """Return a model's name; one that is a path is relative to the settings file."""
    if name in {EMBEDDED, LEXICAL} or not (info.context or {}).get(FOLDER):
        return name
    path = beside_file(Path(name), info)
    is_path = name.startswith(".") or name.endswith(".onnx") or path.exists()
    return str(path) if is_path else name


def path_as_text(value: object) -> object:
    """Return a path as text, and anything else as it is."""
    return str(value) if isinstance(value, PurePath) else value


LocalPath: TypeAlias = Annotated[Path, AfterValidator(beside_file)]
ModelName: TypeAlias = Annotated[
    str, BeforeValidator(path_as_text), AfterValidator(model_beside_file)
]
"""A hub id, a folder or a file."""

RecordT = TypeVar("RecordT", bound="DataclassInstance")
_NOTHING: Mapping[str, object] = MappingProxyType({})


class Table(BaseModel):
    """A table of settings: a key that is not one of its fields is an error."""

    # Validators are built at first use: a third of the import time otherwise.
    # Errors do not repeat values: somebody may have written a key where its name was expected.
    model_config = ConfigDict(
        extra="forbid", frozen=True, defer_build=True, hide_input_in_errors=True
    )


def record(kind: type[RecordT], table: Table, given: Mapping[str, object] = _NOTHING) -> RecordT:
    """Return a record of this kind, filled with the table's values by the names of its fields.

    A field in seconds, such as `slow_s`, reads a key in milliseconds, `slow_ms`. `given` has the
    values of fields that the table has not, or not in the record's type. Other fields keep their
    default.
    """
    values = dict(given)
    for name in (field.name for field in fields(kind) if field.name not in given):
        milliseconds = name.removesuffix("_s") + "_ms"
        if name in type(table).model_fields:
            values[name] = getattr(table, name)
        elif milliseconds in type(table).model_fields:
            value = getattr(table, milliseconds)
            values[name] = None if value is None else value / 1e3
    make: Callable[..., RecordT] = kind
    return make(**values)
