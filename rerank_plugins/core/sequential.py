"""Score tier by tier, best first, and stop once a better candidate is hardly left."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from ..records import Code, Decision, Usage
from ..rules import selection
from ..rules.selection import Sequential
from ..scoring import Scored, Scorer


async def score(
    scorer: Scorer,
    query: str,
    passages: Sequence[str],
    priors: Sequence[float | None],
    rule: Sequential,
    *,
    deadline_s: float | None = None,
) -> Scored:
    """Score the head of `passages` that `rule` asks for; the rest comes back not done."""
    parts: list[Scored] = []
    scores: list[float] = []
    while len(scores) < len(passages):
        tier = passages[len(scores) : len(scores) + rule.tier]
        part = await scorer.score(query, tier, deadline_s=deadline_s)
        parts.append(part)
        scores += part.scores.tolist()
        if not part.done.all() or (
            len(scores) >= rule.min
            and selection.chance_of_entry(scores, priors, rule.top_k) < rule.epsilon
        ):
            break
    joined = join(parts, len(passages))
    left = len(passages) - len(scores)
    if not left:
        return joined
    decision = Decision("select", Code.DEPTH, left, f"chance of entry below {rule.epsilon:g}")
    return replace(joined, decisions=(*joined.decisions, decision))


def join(parts: Sequence[Scored], passages: int) -> Scored:
    """Join the answers for consecutive tiers into one for all `passages`; the rest is not done."""
    left = passages - sum(len(part.done) for part in parts)
    states = [part.state for part in parts if part.state is not None]
    usage = Usage()
    for part in parts:
        usage += part.usage
    return Scored(
        np.concatenate([*(part.scores for part in parts), np.zeros(left, dtype=np.float32)]),
        np.concatenate([*(part.done for part in parts), np.zeros(left, dtype=np.bool_)]),
        np.concatenate([*(part.truncated_tokens for part in parts), np.zeros(left, np.int64)]),
        state=states[0].join(states[1:]) if len(states) == len(parts) else None,
        timings=tuple(one for part in parts for one in part.timings),
        decisions=tuple(one for part in parts for one in part.decisions),
        usage=usage,
    )
