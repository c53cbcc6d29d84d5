"""What batches of a model cost on this machine, kept on disk from one process to the next."""

import json
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from .graphs import cache

# Where a batch takes so much less than what was kept, that was measured under load.
_MUST_GAIN = 1.5
_TYPICAL_TOKENS = 64


@dataclass(frozen=True, slots=True)
class Costs:
    """What warm-up measures: the batch size that pays best, in padded tokens, and batch times.

    `seconds` are those of batches of `sizes` (pairs, length), on every worker at once.
    """

    batch_tokens: int
    sizes: tuple[tuple[int, int], ...]
    seconds: tuple[float, ...]


def keep(path: Path, costs: Costs) -> None:
    """Write costs for the next process, where the folder can be written."""
    cache.write(path, json.dumps(asdict(costs)).encode())


def kept(path: Path) -> Costs | None:
    """Read what an earlier process measured, None where there is nothing of use."""
    try:
        facts = json.loads(path.read_text(encoding="ascii"))
        sizes = tuple((int(pairs), int(length)) for pairs, length in facts["sizes"])
        costs = Costs(int(facts["batch_tokens"]), sizes, tuple(map(float, facts["seconds"])))
    except (OSError, ValueError, KeyError, TypeError):
        return None
    sound = sizes and len(sizes) == len(costs.seconds) and costs.batch_tokens > 0
    possible = all(math.isfinite(one) and one > 0.0 for one in costs.seconds)
    return costs if sound and possible else None


def confirmed(costs: Costs, timed: Callable[[tuple[int, int]], float]) -> Costs | None:
    """Time one typical pair anew and give the costs at today's level, or None.

    None where the pair is much faster than it was: what was measured under load must not last.
    Where it is slower, the machine is loaded now, and earlier costs say more than new ones would.
    `timed` gives the seconds of a batch (pairs, length).

    >>> confirmed(Costs(512, ((1, 64), (8, 64)), (0.003, 0.02)), lambda size: 0.0045)
    Costs(batch_tokens=512, sizes=((1, 64), (8, 64)), seconds=(0.0045, 0.03))
    >>> confirmed(Costs(512, ((1, 64), (8, 64)), (0.003, 0.02)), lambda size: 0.0015)
    """
    known = dict(zip(costs.sizes, costs.seconds, strict=True))
    size = min(known, key=lambda one: (one[0], abs(one[1] - _TYPICAL_TOKENS)))
    level = timed(size) / known[size]
    if level * _MUST_GAIN < 1.0:
        return None
    return replace(costs, seconds=tuple(float(f"{one * level:.6g}") for one in costs.seconds))
