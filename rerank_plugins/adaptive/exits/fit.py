"""Exit heads fitted to the model's own scores: no labels, closed form."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ...rules.correlation import spearman
from ...rules.windows import Fold, fold
from ...scoring.exits import heads as heads_module
from ...scoring.exits.heads import Head, Probe
from .collect import Observed

_PENALTIES = (1e-2, 1e-1, 1.0, 1e1, 1e2, 1e3)
_FOLDS = 4


@dataclass(frozen=True, slots=True)
class Fitted:
    """A head, with the deviation of its residuals and its rank correlation within queries."""

    head: Head
    deviation: float
    correlation: float


def fit(observed: Sequence[Observed], heads: Sequence[Head]) -> list[Fitted]:
    """Return fitted heads, in order; a probe reads the scores of the exit before it.

    The model's own heads and similarities are only scaled to the last score. A probe is a ridge on
    query-centred scores: the rank within a query is all that matters. Its penalty is chosen on
    queries held out.
    """
    fitted: list[Fitted] = []
    before = [np.zeros(len(seen.final), dtype=np.float32) for seen in observed]
    for place, head in enumerate(heads):
        if head.kind == "probe":
            made = _probe(observed, head, place, before)
        else:
            made = _scaled(observed, head, place)
        pairs = zip(observed, before, strict=True)
        before = [pair_scores(seen, made, place, scores) for seen, scores in pairs]
        residuals = [
            _centred(seen.final - scores) for seen, scores in zip(observed, before, strict=True)
        ]
        correlations = [
            spearman(seen.final, scores) for seen, scores in zip(observed, before, strict=True)
        ]
        deviation = float(np.concatenate(residuals).std())
        fitted.append(Fitted(made, deviation, float(np.mean(np.nan_to_num(correlations)))))
    return fitted


def pair_scores(
    seen: Observed, head: Head, place: int, before: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Return the scores of a query's pairs by a fitted head; `before` are the last exit's."""
    own = seen.own[place]
    if head.kind != "probe" and own is not None:
        return np.asarray(head.gain * own + head.offset, dtype=np.float32)
    ranks = seen.owners.astype(np.float32)
    return heads_module.probe_scores(head, seen.first[place].astype(np.float32), before, ranks)


def levels(
    seen: Observed, fitted: Sequence[Head], how: Fold
) -> tuple[list[NDArray[np.float64]], NDArray[np.float64]]:
    """Return the scores of a query's candidates at each exit, and the whole model's."""
    candidates = int(seen.owners.max(initial=-1)) + 1
    before = np.zeros(len(seen.final), dtype=np.float32)
    out: list[NDArray[np.float64]] = []
    for place, head in enumerate(fitted):
        before = pair_scores(seen, head, place, before)
        out.append(fold(before, seen.owners, candidates, how).astype(np.float64))
    return out, fold(seen.final, seen.owners, candidates, how).astype(np.float64)


def _scaled(observed: Sequence[Observed], head: Head, place: int) -> Head:
    """Return a head of the model's own, scaled to the last score by least squares."""
    own = np.concatenate([own for seen in observed if (own := seen.own[place]) is not None])
    final = np.concatenate([seen.final for seen in observed])
    gain, offset = np.polyfit(own.astype(np.float64), final.astype(np.float64), 1)
    return replace(head, gain=float(gain), offset=float(offset))


def _probe(
    observed: Sequence[Observed], head: Head, place: int, before: Sequence[NDArray[np.float32]]
) -> Head:
    with_before = place > 0
    x = [
        _features(seen, place, scores, with_before=with_before)
        for seen, scores in zip(observed, before, strict=True)
    ]
    y = [seen.final.astype(np.float64) for seen in observed]
    penalty = _best_penalty(x, y)
    weights = _ridge([_centred(a) for a in x], [_centred(b) for b in y], penalty)
    bias = float(np.mean(np.concatenate(y)) - np.concatenate(x).mean(axis=0) @ weights)
    width = observed[0].first[place].shape[1]
    probe = Probe(
        weights[:width].astype(np.float32),
        previous=float(weights[width + 1]) if with_before else 0.0,
        log_rank=float(weights[width]),
        bias=bias,
    )
    return replace(head, probe=probe)


def _features(
    seen: Observed, place: int, before: NDArray[np.float32], *, with_before: bool
) -> NDArray[np.float64]:
    rows = heads_module.normalised(seen.first[place].astype(np.float32))
    columns = [rows, np.log1p(seen.owners)[:, None]]
    if with_before:
        columns.append(before[:, None])
    return np.concatenate(columns, axis=1).astype(np.float64)


def _ridge(
    x: Sequence[NDArray[np.float64]], y: Sequence[NDArray[np.float64]], penalty: float
) -> NDArray[np.float64]:
    all_x, all_y = np.concatenate(x), np.concatenate(y)
    gram = all_x.T @ all_x + penalty * len(all_y) * 1e-3 * np.eye(all_x.shape[1])
    return np.asarray(np.linalg.solve(gram, all_x.T @ all_y), dtype=np.float64)


def _best_penalty(x: Sequence[NDArray[np.float64]], y: Sequence[NDArray[np.float64]]) -> float:
    """Return the penalty with the least error on held-out queries."""
    errors = dict.fromkeys(_PENALTIES, 0.0)
    centred = [(_centred(a), _centred(b)) for a, b in zip(x, y, strict=True)]
    for part in range(min(_FOLDS, len(centred))):
        train = [pair for i, pair in enumerate(centred) if i % _FOLDS != part] or centred
        held = [pair for i, pair in enumerate(centred) if i % _FOLDS == part]
        for penalty in _PENALTIES:
            weights = _ridge([a for a, _ in train], [b for _, b in train], penalty)
            errors[penalty] += sum(float(((b - a @ weights) ** 2).sum()) for a, b in held)
    return min(errors, key=errors.__getitem__)


def _centred(values: NDArray[np.floating]) -> NDArray[np.float64]:
    return np.asarray(values - values.mean(axis=0), dtype=np.float64)
