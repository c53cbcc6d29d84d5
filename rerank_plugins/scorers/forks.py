"""Forks: threads do not survive them, and what needs some says so instead of waiting for ever."""

import os
from dataclasses import dataclass, field

from ..errors import ClosedError


@dataclass(frozen=True, slots=True)
class Home:
    """The process that `what` and its threads live in."""

    what: str
    process: int = field(default_factory=os.getpid)

    @property
    def left(self) -> bool:
        """Tell whether this is a fork of that process."""
        return os.getpid() != self.process

    def check(self) -> None:
        """Raise `ClosedError` in a fork."""
        if self.left:
            message = (
                f"{self.what} was made in process {self.process} and its threads are there, not in "
                f"the fork {os.getpid()}; make one in each process, after the fork (with gunicorn: "
                "in post_fork, or without --preload)"
            )
            raise ClosedError(message)
