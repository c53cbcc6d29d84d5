"""The reference sample of each feature, taken when all was well, and its file."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ...errors import ModelError
from .features import DECIMALS, FEATURES, Feature, Observation

_SHOWN = 12


FORMAT = 1
# As many as KS and PSI can use: quantiles of more say nothing new.
_MAX_VALUES = 2000


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A reference to judge windows by.

    `values` holds each feature's sample, ascending; `canaries` the scores of fixed pairs, which the
    same model gives again wherever it runs.
    `subject` identifies the model as it is run: another one must not be judged by this.
    """

    subject: str
    model: str
    requests: int
    top_k: int
    values: Mapping[Feature, tuple[float, ...]]
    canaries: tuple[float, ...] = ()

    def sample(self, feature: Feature) -> NDArray[np.float64]:
        """Give a feature's sample; empty where requests never told it."""
        return np.asarray(self.values.get(feature, ()), dtype=np.float64)


def snapshot(
    observations: Sequence[Observation],
    *,
    subject: str,
    model: str,
    top_k: int = 10,
    canaries: Sequence[float] = (),
) -> Snapshot:
    """Sum up what was observed while all was well."""
    values: dict[Feature, tuple[float, ...]] = {}
    for feature in FEATURES:
        column = np.array([one[feature] for one in observations], dtype=np.float64)
        column = np.sort(column[~np.isnan(column)])
        if column.size > _MAX_VALUES:
            shares = (np.arange(_MAX_VALUES) + 0.5) / _MAX_VALUES
            column = np.quantile(column, shares)
        values[feature] = tuple(round(float(one), DECIMALS) for one in column)
    return Snapshot(
        subject,
        model,
        len(observations),
        top_k,
        values,
        tuple(round(float(one), DECIMALS) for one in canaries),
    )


def to_json(found: Snapshot) -> dict[str, object]:
    """Give a snapshot as JSON-ready data."""
    return {
        "format": FORMAT,
        "subject": found.subject,
        "model": found.model,
        "requests": found.requests,
        "top_k": found.top_k,
        "values": {name: list(values) for name, values in found.values.items()},
        "canaries": list(found.canaries),
    }


def from_json(data: Mapping[str, object]) -> Snapshot:
    """Read what `to_json` gave. Raises `ValueError` where it is something else."""
    if data.get("format") != FORMAT:
        message = f"format is {data.get('format')!r}, expected {FORMAT}"
        raise ValueError(message)
    found = data.get("values")
    if not isinstance(found, Mapping) or not found:
        message = f"{found!r:.40} is no table of samples"
        raise ValueError(message)
    return Snapshot(
        str(data.get("subject")),
        str(data.get("model")),
        _count(data.get("requests")),
        _count(data.get("top_k")),
        # A snapshot from before a feature was watched says nothing about it.
        {name: _numbers(found.get(name, [])) for name in FEATURES},
        _numbers(data.get("canaries")),
    )


def _count(value: object) -> int:
    if not isinstance(value, int) or value < 0:
        message = f"{value!r} is no count"
        raise ValueError(message)
    return value


def _numbers(values: object) -> tuple[float, ...]:
    if not isinstance(values, list) or not all(
        isinstance(one, int | float) and math.isfinite(one) for one in values
    ):
        message = "a sample is no list of finite numbers"
        raise ValueError(message)
    return tuple(float(one) for one in values)


def save(found: Snapshot, path: Path) -> None:
    """Write a snapshot."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(to_json(found)) + "\n", encoding="utf-8")


def load(path: Path) -> Snapshot:
    """Read a snapshot; `require` says whether it fits. Raises `ModelError`."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        return from_json(data if isinstance(data, dict) else {})
    except (OSError, ValueError) as error:
        message = (
            f"{path} holds no drift snapshot ({error}); make one with: "
            "rerank-plugins drift snapshot --dataset DIR --save FILE"
        )
        raise ModelError(message) from error


def require(found: Snapshot, subject: str, path: Path) -> None:
    """Refuse a snapshot of another subject than the models as they run. Raises `ModelError`."""
    if found.subject != subject:
        message = (
            f"the snapshot {path} was taken of {found.model} ({found.subject[:_SHOWN]}), and what "
            f"runs here is {subject[:_SHOWN]}: other weights, tokenizer, limits or stages. Its "
            "numbers do not hold here; make another with: rerank-plugins drift snapshot "
            "--dataset DIR --save FILE"
        )
        raise ModelError(message)
