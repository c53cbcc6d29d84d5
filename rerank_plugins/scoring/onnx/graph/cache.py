"""Rewritten graphs on disk, with measurements of them; names hash what they were made from.

Writing is atomic and optional: a cache that cannot be read or written costs time, never an answer.
Whoever can write the folder decides scores, so it belongs to the user alone. A graph's name holds
the hash of its content too: one that was damaged, or that another user made, is made and proved
again. Windows has no such owners and modes; there its own permissions of the user's folder count.
"""

import contextlib
import functools
import hashlib
import logging
import math
import os
import platform
import stat
import sys
import tempfile
from pathlib import Path

from ...models.content import GraphFile, fingerprint
from ...models.files import cpu_features

_LOG = logging.getLogger(__name__)

# Raised with every change of the rewrites, so that no older result is used.
_VERSION = 3
# The least recently used files go first when the folder outgrows this.
_MAX_BYTES = 4 * 2**30


def directory() -> Path | None:
    """Return the folder for rewritten graphs, in the platform's cache folder; None without one."""
    try:
        if sys.platform == "win32":
            home = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
        elif sys.platform == "darwin":
            home = Path.home() / "Library" / "Caches"
        else:
            home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    except RuntimeError:
        # The user has no home.
        return None
    return home / "rerank-plugins" / "graphs"


def usable() -> Path | None:
    """Return the folder for rewritten graphs, made if need be; None if others may write to it."""
    folder = directory()
    if folder is None:
        return None
    with contextlib.suppress(OSError):
        folder.parent.mkdir(parents=True, exist_ok=True)
        folder.mkdir(mode=0o700, exist_ok=True)
    if reason := refusal(folder):
        warn(
            f"the graph cache {folder} is not used: {reason}. Start-up takes longer; remove the "
            "folder, and it is made again for this user alone"
        )
    return None if reason or not folder.is_dir() else folder


def refusal(folder: Path) -> str:
    """Return why a folder is not this user's alone, "" where it is or where there is none."""
    try:
        found = folder.lstat()
    except OSError:
        return ""
    if not stat.S_ISDIR(found.st_mode):
        return "it is a link or a file"
    if not _own(found):
        return f"it belongs to user {found.st_uid}"
    if sys.platform != "win32" and found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        return f"others may write to it (mode {stat.S_IMODE(found.st_mode):o})"
    return ""


@functools.cache
def warn(message: str) -> None:
    """Log a warning, once."""
    _LOG.warning(message)


def key(graph: Path | GraphFile, runtime: str) -> str:
    """Hash what decides the result: the graph, its weights, the rewrites, the runtime, the CPU."""
    facts = [str(_VERSION), runtime, platform.machine(), *sorted(cpu_features())]
    return fingerprint([*facts, GraphFile.of(graph).sha256()])[:32]


def graph(folder: Path, name: str) -> bytes | None:
    """Return a kept graph, None where none is whole and this user's own; others are removed."""
    for path in sorted(folder.glob(f"{name}.*.onnx")):
        data = read(path)
        if data is not None and path.name == _named(name, data):
            with contextlib.suppress(OSError):
                os.utime(path)
            return data
        with contextlib.suppress(OSError):
            path.unlink()
    return None


def keep(folder: Path, name: str, data: bytes) -> None:
    """Keep a graph."""
    write(folder / _named(name, data), data)


def read(path: Path) -> bytes | None:
    """Return what a file of this user holds, None where there is none; links are not followed."""
    try:
        found = path.lstat()
        if not stat.S_ISREG(found.st_mode) or not _own(found):
            return None
        return path.read_bytes()
    except OSError:
        return None


def note(folder: Path, name: str) -> str | None:
    """Return why a graph was not rewritten, None where nothing is known."""
    data = read(folder / f"{name}.txt")
    return None if data is None else data.decode("utf-8", "replace")


def number(path: Path) -> float | None:
    """Return a measured number, None where there is no finite one."""
    try:
        value = float(read(path) or b"")
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def write(path: Path, data: bytes) -> None:
    """Write a file completely or not at all."""
    with contextlib.suppress(OSError):
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, suffix=".part", delete=False) as file:
            part = Path(file.name)
            try:
                file.write(data)
                file.close()
                part.replace(path)
            finally:
                part.unlink(missing_ok=True)
        _trim(path.parent, keep=path)


def _named(name: str, data: bytes) -> str:
    return f"{name}.{hashlib.sha256(data).hexdigest()}.onnx"


def _own(found: os.stat_result) -> bool:
    return sys.platform == "win32" or found.st_uid == os.geteuid()


def _trim(folder: Path, *, keep: Path) -> None:
    files = [(path.stat().st_mtime, path.stat().st_size, path) for path in folder.glob("*.onnx")]
    total = sum(size for _, size, _ in files)
    for _, size, path in sorted(files):
        if total <= _MAX_BYTES:
            return
        if path != keep:
            path.unlink(missing_ok=True)
            total -= size
