"""What this process may use: its cores, and whether it is a fork of another one."""

import os
from dataclasses import dataclass, field
from pathlib import Path

from ...errors import ClosedError

_QUOTA = Path("/sys/fs/cgroup/cpu.max")


def count() -> int:
    """Count usable cores: the machine's, less CPU affinity and a container's quota; at least 1."""
    affinity = getattr(os, "sched_getaffinity", None)
    cores = len(affinity(0)) if affinity is not None else os.cpu_count() or 1
    try:
        quota, period = _QUOTA.read_text(encoding="ascii").split()
        limit = int(quota) / int(period)
    except (OSError, ValueError):
        return max(1, cores)
    return max(1, min(cores, round(limit)))


def workers(inside: int) -> int:
    """Count the workers that keep every core busy, each with `inside` threads (0: all cores)."""
    return max(1, count() // inside) if inside else 1


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
