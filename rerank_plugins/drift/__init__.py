"""Drift: what requests look like now against what they looked like when all was well."""

from .observing import FEATURES, Feature, Observation, observe
from .snapshot import Snapshot, from_json, snapshot, to_json
from .verdict import Finding, Report, Verdict, Watch, judge
from .window import Window

__all__ = [
    "FEATURES",
    "Feature",
    "Finding",
    "Observation",
    "Report",
    "Snapshot",
    "Verdict",
    "Watch",
    "Window",
    "from_json",
    "judge",
    "observe",
    "snapshot",
    "to_json",
]
