"""From scores per text to one hit per candidate, their order, and how many are returned."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ..records import Candidate, Code, Decision, Hit, Result
from ..rules import calibration, fusion, selection
from ..rules.selection import Cut
from .progress import Progress
from .setup import Setup
from .shortlist import Shortlist
from .stage import Stage


@dataclass(frozen=True, slots=True)
class Ranked:
    """The candidates in their final order.

    hits: one per candidate, best first
    order: the candidates' places in the caller's list, best first
    fused: how many have the prior fused into what orders them
    """

    hits: tuple[Hit, ...]
    order: tuple[int, ...]
    fused: int


def rank(
    candidates: Sequence[Candidate], chosen: Shortlist, progress: Progress, setup: Setup
) -> Ranked:
    """Return the candidates in their final order.

    Deeper stages come first, then what orders within a stage: the score, fused with the prior
    where it counts. Where the policy split the candidates between models, probabilities order and
    nothing is fused. Unscored candidates keep first-stage order behind the others.
    """
    hits = [
        _hit(index, candidate, slot, progress, setup.stages)
        for index, (candidate, slot) in enumerate(zip(candidates, chosen.slot_of, strict=True))
    ]
    fused = 0
    if not progress.withheld:
        hits, fused = _fuse(hits, progress, setup, has_priors=chosen.has_priors)
    tiers: list[int] = []
    keys: list[float | None] = []
    for hit, slot in zip(hits, chosen.slot_of, strict=True):
        own = hit.score if hit.fused is None else hit.fused
        tiers.append(0 if slot is None else progress.tier(slot))
        keys.append(own if slot is None else progress.key(slot, own))
    order = fusion.merge(tiers, keys)
    hits = _without_fallback_scores(setup.stages, hits)
    return Ranked(tuple(hits[index] for index in order), order, fused)


def cut(result: Result, top_k: int | None, rule: Cut | None = None, *, depth: int = 1) -> Result:
    """Return the result with only the hits that `rule` and `top_k` both let through.

    The order stays whole. `depth` is that of the last regular stage: only its scores compare with
    each other.
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


def _hit(
    index: int,
    candidate: Candidate,
    slot: int | None,
    progress: Progress,
    stages: Sequence[Stage],
) -> Hit:
    if slot is None or not progress.depths[slot]:
        truncated = 0 if slot is None else progress.truncated_tokens[slot]
        return Hit(index, None, prior=candidate.prior, truncated_tokens=truncated)
    score, probability = progress.scores[slot], progress.probabilities[slot]
    kind = stages[progress.depths[slot] - 1].scorer.score_kind
    return Hit(
        index,
        score,
        probability=probability,
        prior=candidate.prior,
        stage=progress.stages[slot],
        depth=progress.depths[slot],
        truncated_tokens=progress.truncated_tokens[slot],
        relevance=calibration.relevance(score, kind, probability),
        score_kind=kind,
    )


def _fuse(
    hits: list[Hit], progress: Progress, setup: Setup, *, has_priors: bool
) -> tuple[list[Hit], int]:
    """Return the hits with the prior fused in, and how many they are.

    It is fused in depth by depth, by weight only where every candidate has a prior. At each depth
    the prior weighs as much as if every candidate had come that far: it is standardised over all
    candidates that have one, scored or not.
    """
    scored = [hit for hit in hits if hit.depth > 0]
    weighted = setup.prior_weight > 0.0 and has_priors
    weighted = weighted and not any(hit.prior is None for hit in scored)
    if not scored or (setup.fusion == "convex" and not weighted):
        return hits, 0
    depths = np.array([hit.depth for hit in scored])
    scores = np.array([hit.score for hit in scored], dtype=np.float64)
    values = np.zeros(len(scored))
    for depth in set(depths.tolist()):
        here = depths == depth
        if setup.fusion == "reciprocal_ranks":
            values[here] = fusion.reciprocal_ranks(scores[here])
        else:
            spread = None if here.all() else progress.spreads[depth]
            z = _standardised_priors(hits)[[hit.index for hit in scored]][here]
            values[here] = fusion.fuse_some(scores[here], z, spread, setup.prior_weight)
    fused = list(hits)
    for hit, value in zip(scored, values.tolist(), strict=True):
        fused[hit.index] = replace(hit, fused=value)
    return fused, len(scored)


def _standardised_priors(hits: Sequence[Hit]) -> NDArray[np.float64]:
    return fusion.standardise_known(np.array([hit.prior for hit in hits], dtype=np.float64))


def _without_fallback_scores(stages: Sequence[Stage], hits: Sequence[Hit]) -> list[Hit]:
    """Return the hits without scores of fallback stages, whose scale no threshold knows."""
    fallback = {place + 1 for place, stage in enumerate(stages) if stage.when == "fallback"}
    return [replace(hit, score=None) if hit.depth in fallback else hit for hit in hits]
