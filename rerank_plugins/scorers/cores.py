"""How many cores this process may use: not what the machine has, but what it is given."""

import os
from pathlib import Path

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
