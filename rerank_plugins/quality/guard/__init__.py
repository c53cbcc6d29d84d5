"""The guard: watches what requests look like, and changes how they are served where it hurts."""

from ..drift.features import noted
from ..drift.snapshot import load, require, save
from .guard import Guard, Note, State
from .log import Entry
from .log import read as read_log
from .log_replay import Judged, Reading, Review, review
from .null_passages import Score
from .stance import CONFIGURED, Action, GuardOptions, Stance

__all__ = [
    "CONFIGURED",
    "Action",
    "Entry",
    "Guard",
    "GuardOptions",
    "Judged",
    "Note",
    "Reading",
    "Review",
    "Score",
    "Stance",
    "State",
    "load",
    "noted",
    "read_log",
    "require",
    "review",
    "save",
]
