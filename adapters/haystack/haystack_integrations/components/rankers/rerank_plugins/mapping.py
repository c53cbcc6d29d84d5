"""Between Haystack's documents and the engine's candidates."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace

from haystack import Document
from haystack.utils import Secret

from rerank_plugins import Candidate, Result
from rerank_plugins.serving.adapter_support import prior, shown


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a run gives back: the component's own settings under the run's."""

    top_k: int | None
    scale_score: bool
    score_threshold: float | None

    @property
    def of_engine(self) -> int | None:
        """A threshold comes before the cut, so that the engine must not cut."""
        return self.top_k if self.score_threshold is None else None


def checked(top_k: int | None) -> int | None:
    """Give `top_k` back if it is positive or None. Raises `ValueError`."""
    if top_k is not None and top_k <= 0:
        message = f"top_k is {top_k}; expected more than 0, or None for all documents"
        raise ValueError(message)
    return top_k


def distinct(documents: Sequence[Document]) -> list[Document]:
    """Keep one document of each id, the one with the best score, in the place of the first."""
    best: dict[str, Document] = {}
    for one in documents:
        kept = best.get(one.id)
        if kept is None or _score(one) > _score(kept):
            best[one.id] = one
    return list(best.values())


def candidates(
    documents: Sequence[Document], meta_fields: Sequence[str], separator: str
) -> list[Candidate]:
    """Read documents as candidates: chosen metadata and content as text, the score as prior."""
    return [
        Candidate(_text(one, meta_fields, separator), prior(one.score), one.meta)
        for one in documents
    ]


def documents_of(documents: Sequence[Document], result: Result, wanted: Wanted) -> list[Document]:
    """Give copies of the best documents with their scores.

    Where nothing could be scored a threshold cannot judge: the first stage's order is kept.
    """
    scored = [(hit.index, shown(hit, scale=wanted.scale_score)) for hit in result]
    threshold = wanted.score_threshold
    if threshold is not None and any(score is not None for _, score in scored):
        scored = [one for one in scored if one[1] is not None and one[1] >= threshold]
    return [replace(documents[index], score=score) for index, score in scored[: wanted.top_k]]


def variable(secret: Secret | None) -> str | None:
    """Name the first environment variable of a secret that is set. Raises `ValueError`.

    Only the name goes into settings, the value never does. A strict secret must be set.
    """
    if secret is None:
        return None
    try:
        names = secret.to_dict()["env_vars"]
    except ValueError as error:
        message = (
            "token holds its value; expected the name of an environment variable, which can be "
            'saved with a pipeline: Secret.from_env_var("HF_TOKEN")'
        )
        raise ValueError(message) from error
    secret.resolve_value()
    return next((name for name in names if name in os.environ), None)


def _score(document: Document) -> float:
    return float("-inf") if document.score is None else document.score


def _text(document: Document, meta_fields: Sequence[str], separator: str) -> str:
    values = [document.meta.get(name) for name in meta_fields]
    parts = [str(value) for value in values if value is not None]
    return separator.join([*parts, document.content or ""])
