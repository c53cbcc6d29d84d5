"""Drift: what requests look like now against what they looked like when all was well."""

from .features import FEATURES, Feature, Observation, common_start, observe
from .snapshot import Snapshot, from_json, snapshot, to_json
from .verdict import Finding, Report, Test, Verdict, Watch, Window, again, judge

__all__ = [
    "FEATURES",
    "Feature",
    "Finding",
    "Observation",
    "Report",
    "Snapshot",
    "Test",
    "Verdict",
    "Watch",
    "Window",
    "again",
    "common_start",
    "from_json",
    "judge",
    "observe",
    "snapshot",
    "to_json",
]
