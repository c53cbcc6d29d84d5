"""The guard: watches what requests look like, and changes how they are served where it hurts."""

from .files import load, require, save
from .log import Entry
from .log import read as read_log
from .noting import noted
from .options import CONFIGURED, Action, GuardOptions, Stance
from .review import Judged, Reading, Review, review
from .strangers import Score
from .watcher import Guard, Note, State

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
