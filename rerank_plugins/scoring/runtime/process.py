"""This process: how many cores it may use, and whether it is a fork of another one."""

import os
from dataclasses import dataclass, field
from pathlib import Path

from ...errors import ClosedError

_QUOTA = Path("/sys/fs/cgroup/cpu.max")


@dataclass(frozen=True, slots=True)
class OwnerProcess:
    """The process that an object and its threads live in; `what` names the object in errors."""

    what: str
    process_id: int = field(default_factory=os.getpid)

    @property
    def forked(self) -> bool:
        """True if the running process is a fork of the owner."""
        return os.getpid() != self.process_id

    def check(self) -> None:
        """Raise `ClosedError` in a fork."""
        if self.forked:
            message = (
                f"{self.what} was made in process {self.process_id} and its threads are there, not "
                f"in the fork {os.getpid()}; make one in each process, after the fork (with "
                "gunicorn: in post_fork, or without --preload)"
            )
            raise ClosedError(message)


def cores() -> int:
    """Count usable cores: CPU affinity and a container's quota limit them; at least 1."""
    affinity = getattr(os, "sched_getaffinity", None)
    found = len(affinity(0)) if affinity is not None else os.cpu_count() or 1
    try:
        quota, period = _QUOTA.read_text(encoding="ascii").split()
        limit = int(quota) / int(period)
    except (OSError, ValueError):
        return max(1, found)
    return max(1, min(found, round(limit)))


def workers(intra_threads: int) -> int:
    """Count the workers that keep every core busy, each with `intra_threads` (0: all cores)."""
    return max(1, cores() // intra_threads) if intra_threads else 1
