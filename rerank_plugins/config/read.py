"""Read settings from a TOML or JSON file or a dict, and explain what is wrong with them."""

import difflib
import json
import os
import tomllib
from collections.abc import Mapping
from pathlib import Path

from pydantic import ValidationError

from ..errors import ConfigError
from .schema import Settings, keys_at


def read_settings(source: str | os.PathLike[str] | Mapping[str, object]) -> Settings:
    """Read settings from a TOML or JSON file, or a dict. Raises `ConfigError`."""
    if isinstance(source, Mapping):
        return parse_settings(source, "the configuration")
    path = Path(source)
    try:
        text = path.read_text(encoding="utf-8")
        data = json.loads(text) if path.suffix == ".json" else tomllib.loads(text)
    except OSError as error:
        message = f"no configuration at {path}: {error.strerror}; give the path of a TOML file"
        raise ConfigError(message) from error
    except ValueError as error:
        message = f"{path} is not valid {'JSON' if path.suffix == '.json' else 'TOML'}: {error}"
        raise ConfigError(message) from error
    return parse_settings(data, str(path))


def parse_settings(data: Mapping[str, object], where: str) -> Settings:
    """Check a dict against the settings; name unknown keys and their nearest match."""
    try:
        return Settings.model_validate(data)
    except ValidationError as error:
        lines = [_explain(one["loc"], one["type"], one["msg"]) for one in error.errors()]
        message = f"{where}: " + "; ".join(lines)
        raise ConfigError(message) from error


def _explain(loc: tuple[int | str, ...], kind: str, detail: str) -> str:
    where = ".".join(str(part) for part in loc)
    if kind != "extra_forbidden":
        return f"{where or 'the whole'}: {detail}"
    known = sorted(keys_at(loc[:-1]))
    near = difflib.get_close_matches(str(loc[-1]), known, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"known keys are {', '.join(known)}"
    return f"unknown key {where!r}; {hint}"
