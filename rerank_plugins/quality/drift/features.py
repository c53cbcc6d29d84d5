"""The features of a request that are watched for drift."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ...records import Candidate, Hit
from ...rules.correlation import spearman

Feature: TypeAlias = Literal[
    "best",
    "middle",
    "gap",
    "agreement",
    "length_bias",
    "separation",
    "passage_length",
    "query_length",
    "boilerplate",
]

FEATURES: Mapping[Feature, str] = {
    "best": "the best score",
    "middle": "the median score",
    "gap": "the best score minus the k-th best",
    "agreement": "rank correlation of the scores with the first stage's order",
    "length_bias": "rank correlation of the scores with the passages' lengths",
    "separation": "the best score minus that of a random passage",
    "passage_length": "logarithm of the median passage length in characters",
    "query_length": "logarithm of the query's length in characters",
    "boilerplate": "logarithm of the number of characters that all passages begin with",
}
"""What each number means. Scores within a request depend on each other; requests do not."""

DECIMALS = 6
_PLACES: Mapping[Feature, int] = {name: place for place, name in enumerate(FEATURES)}


@dataclass(frozen=True, slots=True)
class Observation:
    """The features of a request, in the order of `FEATURES`; nan: unknown, as of one candidate."""

    values: tuple[float, ...]

    def __getitem__(self, feature: Feature) -> float:
        return self.values[_PLACES[feature]]


def sample(observations: Iterable[Observation], feature: Feature) -> NDArray[np.float64]:
    """Return the values of a feature, of the observations that have it."""
    column = np.array([seen[feature] for seen in observations], dtype=np.float64)
    return column[~np.isnan(column)]


def observe_hits(
    query: str, candidates: Sequence[Candidate], hits: Sequence[Hit], *, null: float = math.nan
) -> Observation | None:
    """Return the features of a request from its hits, before any cut; None: nothing was scored.

    `null` is the score of a passage that has nothing to do with the query.
    """
    scored = sorted((hit for hit in hits if hit.score is not None), key=lambda hit: hit.index)
    if not scored:
        return None
    scores = np.array([hit.score for hit in scored], dtype=np.float64)
    depths = np.array([hit.depth for hit in scored])
    texts = [candidates[hit.index].text or "" for hit in scored]
    return observe(
        scores[depths == depths.max()],
        _order_keys(scores, depths),
        chars=np.array([len(text) for text in texts], dtype=np.float64),
        query_chars=len(query),
        common=common_start(texts),
        null=null,
    )


def observe(
    scores: NDArray[np.float64],
    keys: NDArray[np.float64],
    *,
    chars: NDArray[np.float64],
    query_chars: int,
    common: int | None = None,
    null: float = math.nan,
    top_k: int = 10,
) -> Observation:
    """Return the features of a request; its candidates are in first-stage order.

    `scores` are the deepest stage's, of the candidates it scored. `keys` order all scored
    candidates by the model alone, higher first, and `chars` are the lengths of their passages.
    `common` is the length of the passages' common start, `null` the score of a random passage.
    """
    if scores.size == 0:
        return Observation((math.nan,) * len(FEATURES))
    descending = -np.sort(-scores)
    place = min(top_k, scores.size) - 1
    best = float(descending[0])
    values = (
        best,
        float(np.median(scores)),
        best - float(descending[place]) if place else math.nan,
        spearman(keys, -np.arange(keys.size, dtype=np.float64)),
        spearman(keys, chars),
        best - null,
        math.log(max(1.0, float(np.median(chars)))),
        math.log(max(1, query_chars)),
        math.nan if common is None else math.log1p(common),
    )
    # Rounded as in a snapshot: values that many requests share have to stay equal.
    return Observation(tuple(round(value, DECIMALS) for value in values))


def common_start(texts: Sequence[str]) -> int | None:
    """Return how many characters all texts begin with; None for fewer than three texts.

    Passages found for a query have little reason to begin alike: where they do, something was put
    before each of them.

    >>> common_start(["<Document>: a hen", "<Document>: foxes", "<Document>: the sea"])
    12
    """
    if len(texts) < 3:  # noqa: PLR2004 - two may begin alike by chance
        return None
    first, last = min(texts), max(texts)
    pairs = enumerate(zip(first, last, strict=False))
    return next((place for place, (a, b) in pairs if a != b), len(first))


def _order_keys(scores: NDArray[np.float64], depths: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return keys that order by the model alone: deeper stages first, then the score."""
    if (depths == depths[0]).all():
        return scores
    keys = np.empty(scores.size, dtype=np.float64)
    keys[np.lexsort((scores, depths))] = np.arange(scores.size)
    return keys
