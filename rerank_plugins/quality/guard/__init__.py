"""The guard: watches requests for drift, and changes how they are served where it hurts."""

from ..drift.features import observe_hits
from ..drift.snapshot import load, require, save
from .guard import Guard, Note, State
from .log import LogEntry
from .log import read as read_log
from .log_replay import JudgedWindow, LogReview, ReplayOptions, replay_log
from .null_passages import PairScorer
from .stance import CONFIGURED, Action, GuardOptions, Stance

__all__ = [
    "CONFIGURED",
    "Action",
    "Guard",
    "GuardOptions",
    "JudgedWindow",
    "LogEntry",
    "LogReview",
    "Note",
    "PairScorer",
    "ReplayOptions",
    "Stance",
    "State",
    "load",
    "observe_hits",
    "read_log",
    "replay_log",
    "require",
    "save",
]
