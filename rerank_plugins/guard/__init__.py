"""The guard: watches what requests look like, and changes how they are served where it hurts."""

from .files import load, require, save
from .options import CONFIGURED, Action, GuardOptions, Stance
from .strangers import Score
from .watcher import Guard, Note, State, noted

__all__ = [
    "CONFIGURED",
    "Action",
    "Guard",
    "GuardOptions",
    "Note",
    "Score",
    "Stance",
    "State",
    "load",
    "noted",
    "require",
    "save",
]
