"""API keys: read where they are kept, each time they are needed, and shown nowhere."""

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from ...errors import ConfigError

HIDDEN = "<key>"


@dataclass(frozen=True, slots=True)
class Key:
    """A key that can be had, never a key: `read` asks for it anew, so that keys can be rotated.

    `where` says where it comes from, in words that may be printed.
    """

    where: str
    read: Callable[[], str] = field(repr=False)

    def get(self) -> str:
        """Read the key. Raises `ConfigError` where there is none, or no usable one."""
        key = self.read().strip()
        if not key or not key.isprintable() or not key.isascii():
            message = f"{self.where} holds no usable API key; expected one line of plain text"
            raise ConfigError(message)
        return key


def from_env(name: str) -> Key:
    """Keep a key in an environment variable."""

    def read() -> str:
        return os.environ.get(name, "")

    return Key(f"environment variable {name}", read)


def from_file(path: Path) -> Key:
    """Keep a key in a file, as secret stores mount them."""

    def read() -> str:
        try:
            return path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            message = f"the key file {path} cannot be read ({type(error).__name__})"
            raise ConfigError(message) from error

    return Key(f"file {path}", read)


def hide(text: str, key: str | None) -> str:
    """Take a key out of a text that somebody else wrote, such as an error message.

    >>> hide("invalid api key s3cret", "s3cret")
    'invalid api key <key>'
    """
    return text if not key else text.replace(key, HIDDEN)
