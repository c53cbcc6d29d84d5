"""Haystack's documents as candidates, and results as documents."""

import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from haystack import Document
from haystack.utils import Secret

from rerank_plugins import Candidate, Result
from rerank_plugins.serving.adapter_support import merged, prior


@dataclass(frozen=True, slots=True)
class OutputOptions:
    """Which documents a run returns, with which scores: the run's choice, else the component's."""

    top_k: int | None
    score_threshold: float | None

    @property
    def engine_top_k(self) -> int | None:
        """The engine's top_k; None with a threshold, which is applied before the cut."""
        return self.top_k if self.score_threshold is None else None


def checked(top_k: int | None) -> int | None:
    """Return `top_k` if it is positive or None. Raises `ValueError`."""
    if top_k is not None and top_k <= 0:
        message = f"top_k is {top_k}; expected more than 0, or None for all documents"
        raise ValueError(message)
    return top_k


def distinct(documents: Sequence[Document]) -> list[Document]:
    """Return the documents without repeated ids: the best score stays, in the first's place."""
    best: dict[str, Document] = {}
    for document in documents:
        kept = best.get(document.id)
        if kept is None or _score(document) > _score(kept):
            best[document.id] = document
    return list(best.values())


def candidates(
    documents: Sequence[Document],
    kept: Sequence[Document],
    meta_fields: Sequence[str],
    separator: str,
) -> list[Candidate]:
    """Return the kept documents as candidates.

    Metadata and content are the text, the score is the prior. A text may be sent where all
    `documents` with its id or its content may be.
    """
    by_id: defaultdict[str, list[Mapping[str, object]]] = defaultdict(list)
    by_content: defaultdict[object, list[Mapping[str, object]]] = defaultdict(list)
    for document in documents:
        by_id[document.id].append(document.meta)
        if isinstance(document.content, str):
            by_content[document.content].append(document.meta)
    found = []
    for document in kept:
        same, alike = by_id[document.id], by_content.get(document.content, ())
        alone = len(same) == 1 and len(alike) <= 1
        metadata = document.meta if alone else merged([*same, *alike])
        text = _text(document, meta_fields, separator)
        found.append(Candidate(text, prior(document.score), metadata))
    return found


def documents_of(
    documents: Sequence[Document], result: Result, options: OutputOptions
) -> list[Document]:
    """Return copies of the best documents with their scores.

    Where nothing could be scored, the threshold is not applied and the retriever's order is kept.
    """
    scored = [(hit.index, hit.relevance) for hit in result]
    threshold = options.score_threshold
    if threshold is not None and any(score is not None for _, score in scored):
        scored = [
            (index, score) for index, score in scored if score is not None and score >= threshold
        ]
    return [replace(documents[index], score=score) for index, score in scored[: options.top_k]]


def variable(secret: Secret | None) -> str | None:
    """Return the name of a secret's first environment variable that is set. Raises `ValueError`.

    Only the name goes into settings, never the value. A strict secret must be set.
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
