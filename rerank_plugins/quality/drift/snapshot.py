"""Snapshots: a sample of each feature taken while reranking worked well, and its file."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ...errors import ModelError
from ...text_files import read_text
from .features import DECIMALS, FEATURES, Feature, Observation, sample

FORMAT = 1
# KS and PSI can use no more: further quantiles say nothing new.
_MAX_VALUES = 2000
_ID_CHARS = 12


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The reference that windows are compared with.

    subject: identifies the models as they run; requests of others must not be compared
    requests: how many were observed
    values: the sample of each feature, ascending
    canaries: scores of the fixed pairs, which the same model repeats wherever it runs
    """

    subject: str
    model: str
    requests: int
    top_k: int
    values: Mapping[Feature, tuple[float, ...]]
    canaries: tuple[float, ...] = ()

    def sample(self, feature: Feature) -> NDArray[np.float64]:
        """Return a feature's sample; empty if no request had the feature."""
        return np.asarray(self.values.get(feature, ()), dtype=np.float64)


def snapshot(
    observations: Sequence[Observation],
    *,
    subject: str,
    model: str,
    top_k: int = 10,
    canaries: Sequence[float] = (),
) -> Snapshot:
    """Return the snapshot of requests that were observed while reranking worked well."""
    values: dict[Feature, tuple[float, ...]] = {}
    for feature in FEATURES:
        column = np.sort(sample(observations, feature))
        if column.size > _MAX_VALUES:
            column = np.quantile(column, (np.arange(_MAX_VALUES) + 0.5) / _MAX_VALUES)
        values[feature] = _rounded(column.tolist())
    return Snapshot(subject, model, len(observations), top_k, values, _rounded(canaries))


def to_json(found: Snapshot) -> dict[str, object]:
    """Return a snapshot as data for JSON."""
    return {"format": FORMAT, **asdict(found)}


def from_json(data: Mapping[str, object]) -> Snapshot:
    """Return the snapshot that `to_json` made data of. Raises `ValueError` for other data."""
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
        # A snapshot may be older than a feature.
        {name: _numbers(found.get(name, [])) for name in FEATURES},
        _numbers(data.get("canaries")),
    )


def save(found: Snapshot, path: Path) -> None:
    """Write a snapshot to a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(to_json(found)) + "\n", encoding="utf-8")


def load(path: Path) -> Snapshot:
    """Return the snapshot in a file; `require` checks that it fits. Raises `ModelError`."""
    try:
        data = json.loads(read_text(path))
        return from_json(data if isinstance(data, dict) else {})
    except (OSError, ValueError) as error:
        message = (
            f"{path} holds no drift snapshot ({error}); make one with: "
            "rerank-plugins drift snapshot --dataset DIR --save FILE"
        )
        raise ModelError(message) from error


def require(found: Snapshot, subject: str, path: Path) -> None:
    """Raise `ModelError` if a snapshot was not taken of the models as they run."""
    if found.subject != subject:
        message = (
            f"the snapshot {path} was taken of {found.model} ({found.subject[:_ID_CHARS]}), and "
            f"what runs here is {subject[:_ID_CHARS]}: other weights, tokenizer, limits or stages. "
            "Its numbers do not hold here; make another with: rerank-plugins drift snapshot "
            "--dataset DIR --save FILE"
        )
        raise ModelError(message)


def _rounded(values: Sequence[float]) -> tuple[float, ...]:
    return tuple(round(float(value), DECIMALS) for value in values)


def _count(value: object) -> int:
    if not isinstance(value, int) or value < 0:
        message = f"{value!r} is no count"
        raise ValueError(message)
    return value


def _numbers(values: object) -> tuple[float, ...]:
    if not isinstance(values, list | tuple) or not all(
        isinstance(value, int | float) and math.isfinite(value) for value in values
    ):
        message = "a sample is no list of finite numbers"
        raise ValueError(message)
    return tuple(float(value) for value in values)
