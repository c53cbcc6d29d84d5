"""Fit exit heads to the model's own scores: no labels, closed form."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ...rules.windows import Fold, fold
from ...scoring.exits import heads as heads_module
from ...scoring.exits.heads import Head, Probe
from .collect import Observed

_PENALTIES = (1e-2, 1e-1, 1.0, 1e1, 1e2, 1e3)
_FOLDS = 4


@dataclass(frozen=True, slots=True)
class Fitted:
    """A head, the deviation of its residuals within queries, and its rank correlation there."""

    head: Head
    deviation: float
    correlation: float


def fit(observed: Sequence[Observed], heads: Sequence[Head]) -> list[Fitted]:
    """Fit each head in turn; each probe may read the exit before it.

    A head of the model's own, and a similarity, is only brought to the scale of the last score. A
    probe is a ridge on
    query-centred scores, its penalty chosen on queries held out (rank within a query is all that
    matters).
    """
    fitted: list[Fitted] = []
    before = [np.zeros(len(one.final), dtype=np.float32) for one in observed]
    for place, head in enumerate(heads):
        if head.kind == "probe":
            made = _probe(observed, head, place, before)
        else:
            made = _scaled(observed, head, place)
        before = [pair_scores(one, made, place, b) for one, b in zip(observed, before, strict=True)]
        residuals = np.concatenate(
            [_centred(one.final - b) for one, b in zip(observed, before, strict=True)]
        )
        correlations = [_spearman(one.final, b) for one, b in zip(observed, before, strict=True)]
        fitted.append(Fitted(made, float(residuals.std()), float(np.mean(correlations))))
    return fitted


def pair_scores(
    one: Observed, head: Head, place: int, before: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Score a question's pairs by a fitted head; `before` is what the exit before gave them."""
    own = one.own[place]
    if head.kind != "probe" and own is not None:
        return np.asarray(head.gain * own + head.offset, dtype=np.float32)
    ranks = one.owners.astype(np.float32)
    return heads_module.apply(head, one.first[place].astype(np.float32), before, ranks)


def levels(
    one: Observed, fitted: Sequence[Head], how: Fold
) -> tuple[list[NDArray[np.float64]], NDArray[np.float64]]:
    """Give a question's candidate scores at each exit, and the model's: what `simulate` takes."""
    candidates = int(one.owners.max(initial=-1)) + 1
    before = np.zeros(len(one.final), dtype=np.float32)
    out: list[NDArray[np.float64]] = []
    for place, head in enumerate(fitted):
        before = pair_scores(one, head, place, before)
        out.append(fold(before, one.owners, candidates, how).astype(np.float64))
    return out, fold(one.final, one.owners, candidates, how).astype(np.float64)


def _scaled(observed: Sequence[Observed], head: Head, place: int) -> Head:
    """Bring a head of the model's own to the last score's scale by least squares."""
    own = np.concatenate([x for one in observed if (x := one.own[place]) is not None])
    final = np.concatenate([one.final for one in observed])
    gain, offset = np.polyfit(own.astype(np.float64), final.astype(np.float64), 1)
    return replace(head, gain=float(gain), offset=float(offset))


def _probe(
    observed: Sequence[Observed], head: Head, place: int, before: Sequence[NDArray[np.float32]]
) -> Head:
    with_before = place > 0
    x = [
        _features(one, place, b, with_before=with_before)
        for one, b in zip(observed, before, strict=True)
    ]
    y = [one.final.astype(np.float64) for one in observed]
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
    one: Observed, place: int, before: NDArray[np.float32], *, with_before: bool
) -> NDArray[np.float64]:
    rows = heads_module.normalised(one.first[place].astype(np.float32))
    columns = [rows, np.log1p(one.owners)[:, None]]
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
    """Choose the penalty whose held-out predictions follow the scores best, whole queries held."""
    errors = dict.fromkeys(_PENALTIES, 0.0)
    centred = [(_centred(a), _centred(b)) for a, b in zip(x, y, strict=True)]
    for part in range(min(_FOLDS, len(centred))):
        train = [one for i, one in enumerate(centred) if i % _FOLDS != part] or centred
        held = [one for i, one in enumerate(centred) if i % _FOLDS == part]
        for penalty in _PENALTIES:
            weights = _ridge([a for a, _ in train], [b for _, b in train], penalty)
            errors[penalty] += sum(float(((b - a @ weights) ** 2).sum()) for a, b in held)
    return min(errors, key=errors.__getitem__)


def _centred(values: NDArray[np.floating]) -> NDArray[np.float64]:
    return np.asarray(values - values.mean(axis=0), dtype=np.float64)


def _spearman(a: NDArray[np.floating], b: NDArray[np.floating]) -> float:
    ranks = [np.argsort(np.argsort(values)).astype(np.float64) for values in (a, b)]
    spreads = [one.std() for one in ranks]
    if min(spreads) == 0.0:
        return 0.0
    return float(np.corrcoef(ranks[0], ranks[1])[0, 1])
