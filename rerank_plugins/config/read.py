"""Read settings from a TOML or JSON file or a dict, and explain what is wrong with them."""

import difflib
import json
import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import ValidationError

from ..errors import ConfigError
from ..text_files import read_text
from .schema import Settings, keys_at
from .tables import FOLDER

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

_KEEP = "write keep = N, {share = ...}, {margin = ...} or {probability = ...}"
# What older versions knew, and what to write instead. Keys of stages stand without their number.
_REMOVED: Mapping[str, str] = {
    "selection.stop": "it saved no time that a fixed depth does not; write depth = 50",
    "selection.depth.gap": "write depth = N, {mass = ...} or {risk = ...}",
    **{
        f"selection.cut.{rule}": "write cut = N or top_k = N"
        for rule in ("mass", "nulls", "null_rate")
    },
    **{
        f"stages.{key}.{rule}": _KEEP
        for key in ("keep", "exit_keep")
        for rule in ("score", "accept", "reject")
    },
    'exit_audit.adjust = "both"': 'write adjust = "tighten" or "off"',
}


def read_settings(source: str | os.PathLike[str] | Mapping[str, object]) -> Settings:
    """Read settings from a TOML or JSON file, or a dict. Raises `ConfigError`."""
    if isinstance(source, Mapping):
        return parse_settings(source, "the configuration")
    path = Path(source)
    try:
        text = read_text(path)
        data = json.loads(text) if path.suffix.lower() == ".json" else tomllib.loads(text)
    except OSError as error:
        message = f"no configuration at {path}: {error.strerror}; give the path of a TOML file"
        raise ConfigError(message) from error
    except ValueError as error:
        message = f"{path} is not valid {'JSON' if path.suffix == '.json' else 'TOML'}: {error}"
        raise ConfigError(message) from error
    return parse_settings(data, str(path), folder=path.absolute().parent)


def parse_settings(
    data: Mapping[str, object], where: str, *, folder: Path | None = None
) -> Settings:
    """Check a dict against the settings. Raises `ConfigError` that names every wrong key.

    folder: what its paths are relative to; None: the working directory
    """
    try:
        return Settings.model_validate(data, context={FOLDER: folder})
    except ValidationError as error:
        message = f"{where}: " + "; ".join(_explain(details) for details in error.errors())
        raise ConfigError(message) from error


def _explain(error: "ErrorDetails") -> str:
    """Return the place and what is wrong: a removed option, an unknown key, or a value."""
    place = error["loc"]
    where = ".".join(str(part) for part in place)
    key = ".".join(part for part in place if isinstance(part, str))
    for value in ("", f' = "{error["input"]}"'):
        if (advice := _REMOVED.get(key + value)) is not None:
            return f"{where}{value} was removed: {advice}"
    if error["type"] != "extra_forbidden":
        return f"{where or 'the whole'}: {error['msg']}"
    known = sorted(keys_at(place[:-1]))
    near = difflib.get_close_matches(str(place[-1]), known, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"known keys are {', '.join(known)}"
    return f"unknown key {where!r}; {hint}"
