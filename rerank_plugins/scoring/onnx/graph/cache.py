"""Rewritten graphs on disk, with measurements of them; names hash what they were made from.

Writing is atomic and optional: a cache that cannot be read or written costs time, never an answer.
"""

import contextlib
import math
import os
import platform
import sys
import tempfile
from pathlib import Path

from ...models.files import cpu_features, fingerprint, sha256

# Raised with every change of the rewrites, so that no older result is used.
_VERSION = 3
# The least recently used files go first when the folder outgrows this.
_MAX_BYTES = 4 * 2**30


def directory() -> Path:
    """Return the folder for rewritten graphs, in the platform's cache folder."""
    if sys.platform == "win32":
        home = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    elif sys.platform == "darwin":
        home = Path.home() / "Library" / "Caches"
    else:
        home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return home / "rerank-plugins" / "graphs"


def key(graph: Path, runtime: str) -> str:
    """Hash what decides the result: the graph, its sidecars, the rewrites, the runtime, the CPU."""
    facts = [str(_VERSION), runtime, platform.machine(), *sorted(cpu_features())]
    sidecars = (graph.with_name(graph.name + end) for end in (".data", "_data"))
    facts += [sha256(path) for path in (graph, *sidecars) if path.is_file()]
    return fingerprint(facts)[:32]


def note(folder: Path, name: str) -> str | None:
    """Return why a graph was not rewritten, None where nothing is known."""
    try:
        return (folder / f"{name}.txt").read_text(encoding="utf-8")
    except (OSError, ValueError):
        return None


def number(path: Path) -> float | None:
    """Return a measured number, None where there is no finite one."""
    try:
        value = float(path.read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None
    return value if math.isfinite(value) else None


def touch(path: Path) -> bool:
    """Mark a cached graph as used; return True if it is there."""
    try:
        os.utime(path)
    except OSError:
        return path.is_file()
    return True


def write(path: Path, data: bytes) -> None:
    """Write a file completely or not at all."""
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, suffix=".part", delete=False) as file:
            part = Path(file.name)
            try:
                file.write(data)
                file.close()
                part.replace(path)
            finally:
                part.unlink(missing_ok=True)
        _trim(path.parent, keep=path)


def _trim(folder: Path, *, keep: Path) -> None:
    files = [(path.stat().st_mtime, path.stat().st_size, path) for path in folder.glob("*.onnx")]
    total = sum(size for _, size, _ in files)
    for _, size, path in sorted(files):
        if total <= _MAX_BYTES:
            return
        if path != keep:
            path.unlink(missing_ok=True)
            total -= size
