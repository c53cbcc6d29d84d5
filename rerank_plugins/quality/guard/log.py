"""The guard's log: a JSON line of numbers for each request and each verdict; never text."""

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from io import FileIO
from pathlib import Path
from typing import Any

from ... import text_files
from ...errors import ConfigError, InvalidRequest
from ..drift.features import FEATURES, Observation
from ..drift.verdict import DriftReport


@dataclass(frozen=True, slots=True)
class LogEntry:
    """A line of the log.

    kind: "request", "window", "canaries" or "feedback"
    at_s: seconds since the epoch
    observation: of a request only
    """

    kind: str
    at_s: float
    observation: Observation | None = None
    harmful: bool = False
    acting: bool = False


def open_log(path: Path) -> FileIO:
    """Open a log to append to, without a buffer, which a fork would write again.

    Raises `ConfigError`.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return path.open("ab", buffering=0)
    except OSError as error:
        message = f"the guard's log {path} cannot be opened ({error.strerror}); give another path"
        raise ConfigError(message) from error


def request_line(request_id: str, seen: Observation, at_s: float) -> str:
    """Return the line of a request; features that are nan are left out."""
    features: dict[str, object] = {
        name: seen[name] for name in FEATURES if not math.isnan(seen[name])
    }
    return _line({"kind": "request", "at_s": at_s, "request_id": request_id} | features)


def window_line(report: DriftReport, *, acting: bool, action: str, at_s: float) -> str:
    """Return the line of a window."""
    facts = {"kind": "window", "at_s": at_s, "acting": acting, "action": action}
    return _line(facts | asdict(report))


def note_line(cause: str, value: float, *, harmful: bool, at_s: float) -> str:
    """Return the line of what canaries or feedback showed."""
    return _line({"kind": cause, "at_s": at_s, "value": round(value, 6), "harmful": harmful})


def read(path: Path) -> Iterator[LogEntry]:
    """Yield the lines of a log. Raises `InvalidRequest`."""
    try:
        lines = list(text_files.read_lines(path))
    except (OSError, UnicodeError) as error:
        message = f"{path} cannot be read ({error}); give the guard's log"
        raise InvalidRequest(message) from error
    for number, line in lines:
        try:
            yield _entry(json.loads(line))
        except (ValueError, KeyError, TypeError) as error:
            message = (
                f"{path}, line {number} is none of a guard's log ({type(error).__name__}); "
                "give the file that [guard] log names"
            )
            raise InvalidRequest(message) from error


def _entry(facts: Mapping[str, Any]) -> LogEntry:
    kind, at_s = str(facts["kind"]), float(facts["at_s"])
    if kind == "request":
        values = tuple(float(facts.get(name, math.nan)) for name in FEATURES)
        return LogEntry(kind, at_s, Observation(values))
    harmful = facts["verdict"] == "harmful" if kind == "window" else bool(facts["harmful"])
    return LogEntry(kind, at_s, harmful=harmful, acting=bool(facts.get("acting", False)))


def _line(facts: Mapping[str, object]) -> str:
    return json.dumps(facts) + "\n"
