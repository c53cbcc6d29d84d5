"""The guard's log: JSON lines of numbers, one for each request and each verdict; never text."""

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TextIO

from ..drift import FEATURES, Observation, Report
from ..errors import ConfigError, InvalidRequest


def open_log(path: Path) -> TextIO:
    """Open a log to append to. Raises `ConfigError`."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return path.open("a", encoding="utf-8", buffering=1)
    except OSError as error:
        message = f"the guard's log {path} cannot be opened ({error.strerror}); give another path"
        raise ConfigError(message) from error


def request_line(request_id: str, one: Observation, at_s: float) -> str:
    """Give the line of one request; what it does not tell is left out."""
    features: dict[str, object] = {
        name: one[name] for name in FEATURES if not math.isnan(one[name])
    }
    return _line({"kind": "request", "at_s": at_s, "request_id": request_id} | features)


def window_line(report: Report, *, acting: bool, action: str, at_s: float) -> str:
    """Give the line of one verdict."""
    return _line(
        {
            "kind": "window",
            "at_s": at_s,
            "verdict": report.verdict,
            "requests": report.requests,
            "reasons": list(report.reasons),
            "acting": acting,
            "action": action,
            "findings": [
                {
                    "feature": one.feature,
                    "test": one.test,
                    "value": round(one.value, 4),
                    "critical": round(one.critical, 4),
                    "p": one.p,
                    "shift": round(one.shift, 3),
                    "moved": one.moved,
                }
                for one in report.findings
            ],
        }
    )


def note_line(cause: str, value: float, *, harmful: bool, at_s: float) -> str:
    """Give the line of what canaries or feedback showed."""
    facts = {"kind": cause, "at_s": at_s, "value": round(value, 6), "harmful": harmful}
    return _line(facts)


def read(path: Path) -> Iterator[Observation]:
    """Read the requests of a log. Raises `InvalidRequest`."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        message = f"{path} cannot be read ({error}); give the guard's log"
        raise InvalidRequest(message) from error
    for number, line in enumerate(lines, start=1):
        try:
            facts = json.loads(line)
            if facts["kind"] == "request":
                yield Observation(tuple(float(facts.get(name, math.nan)) for name in FEATURES))
        except (ValueError, KeyError, TypeError) as error:
            message = (
                f"{path}, line {number} is none of a guard's log ({type(error).__name__}); "
                "give the file that [guard] log names"
            )
            raise InvalidRequest(message) from error


def _line(facts: Mapping[str, object]) -> str:
    return json.dumps(facts) + "\n"
