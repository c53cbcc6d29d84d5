"""Drift: how requests differ from a snapshot taken while reranking worked well."""

from .features import FEATURES, Feature, Observation, common_start, observe
from .snapshot import Snapshot, from_json, snapshot, to_json
from .verdict import (
    DriftReport,
    DriftTest,
    DriftThresholds,
    Finding,
    RequestWindow,
    Verdict,
    judge,
    rejudge,
)

__all__ = [
    "FEATURES",
    "DriftReport",
    "DriftTest",
    "DriftThresholds",
    "Feature",
    "Finding",
    "Observation",
    "RequestWindow",
    "Snapshot",
    "Verdict",
    "common_start",
    "from_json",
    "judge",
    "observe",
    "rejudge",
    "snapshot",
    "to_json",
]
