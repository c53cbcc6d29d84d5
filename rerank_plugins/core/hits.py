"""From scores per text to one hit per candidate, the prior fused in, and how many are returned."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from ..records import Candidate, Code, Decision, Hit, Result
from ..rules import fusion, selection
from ..rules.fusion import Method
from ..rules.selection import Cut
from .progress import Standing
from .shortlist import Shortlist
from .stage import Stage


def assemble(
    candidates: Sequence[Candidate],
    chosen: Shortlist,
    standing: Standing,
    *,
    prior_weight: float,
    method: Method = "convex",
) -> tuple[list[Hit], int]:
    """Give each candidate its hit, in the caller's order; also how many have their prior fused.

    Where the policy split the candidates between models, probabilities order, and nothing is fused.
    """
    hits: list[Hit] = []
    for index, candidate in enumerate(candidates):
        text = chosen.text_of[index]
        if text is None:
            hits.append(Hit(index, None, prior=candidate.prior))
            continue
        hits.append(
            Hit(
                index,
                standing.scores[text],
                probability=standing.probabilities[text],
                prior=candidate.prior,
                stage=standing.stages[text],
                depth=standing.depths[text],
                truncated_tokens=standing.truncated_tokens[text],
            )
        )
    return (hits, 0) if standing.held else _fuse(hits, standing, prior_weight, method)


def orders(
    chosen: Shortlist, standing: Standing, hits: Sequence[Hit]
) -> tuple[list[int], list[float | None]]:
    """Give each candidate's tier and its key there, as the merge wants them."""
    tiers: list[int] = []
    keys: list[float | None] = []
    for hit, text in zip(hits, chosen.text_of, strict=True):
        own = hit.fused if hit.fused is not None else hit.score
        tiers.append(0 if text is None else standing.tier(text))
        keys.append(own if text is None else standing.key(text, own))
    return tiers, keys


def _fuse(
    hits: list[Hit], standing: Standing, prior_weight: float, method: Method
) -> tuple[list[Hit], int]:
    """Fuse the first stage in, depth by depth; by weight only where every candidate has a prior.

    At each depth the prior weighs as much as if every candidate had come that far: it is
    standardised over all that have one, scored or not.
    """
    scored = [hit for hit in hits if hit.depth > 0]
    weighted = prior_weight > 0.0 and not any(hit.prior is None for hit in scored)
    if not scored or (method == "convex" and not weighted):
        return hits, 0
    depths = np.array([hit.depth for hit in scored])
    scores = np.array([hit.score for hit in scored], dtype=np.float64)
    z = np.zeros(len(scored))
    if method == "convex":
        priors = np.array([hit.prior for hit in hits], dtype=np.float64)
        z = fusion.standardise_known(priors)[[hit.index for hit in scored]]
    for depth in set(depths.tolist()):
        here = depths == depth
        spread = None if (depths == depth).all() else standing.spreads[depth]
        if method == "reciprocal_ranks":
            values = fusion.reciprocal_ranks(scores[here])
        else:
            values = fusion.fuse_some(scores[here], z[here], spread, prior_weight)
        for place, value in zip(np.flatnonzero(here).tolist(), values.tolist(), strict=True):
            index = scored[place].index
            hits[index] = replace(hits[index], fused=value)
    return hits, len(scored)


def without_foreign_scores(stages: Sequence[Stage], hits: Sequence[Hit]) -> list[Hit]:
    """Take the scores of fallback stages out: no threshold of the caller's is on their scale."""
    foreign = {place + 1 for place, stage in enumerate(stages) if stage.when == "fallback"}
    return [replace(hit, score=None) if hit.depth in foreign else hit for hit in hits]


def cut(result: Result, top_k: int | None, rule: Cut | None = None, *, depth: int = 1) -> Result:
    """Return the head of the hits that `rule` and `top_k` agree on; the order stays whole.

    `depth` is that of the last regular stage: only its scores compare with each other.
    """
    hits = result.hits
    count = selection.cut(
        rule,
        [hit.score if hit.depth == depth else None for hit in hits],
        [hit.probability for hit in hits],
    )
    count = count if top_k is None else min(count, top_k)
    if count >= len(hits):
        return result
    decision = Decision("cut", Code.CUT, len(hits) - count)
    return replace(result, hits=hits[:count], decisions=(*result.decisions, decision))
