"""What each client dialect sends and expects back, as data."""

import time
import uuid
from typing import Annotated, Literal, TypeAlias

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from ...records import Hit, Result
from ..adapter_support import shown

Dialect: TypeAlias = Literal["cohere_v2", "jina", "tei"]


def _not_blank(text: str) -> str:
    if not text.strip():
        message = "expected text that is not blank"
        raise ValueError(message)
    return text


Text: TypeAlias = Annotated[str, Field(max_length=2_000_000)]

Query: TypeAlias = Annotated[
    str, Field(min_length=1, max_length=100_000), AfterValidator(_not_blank)
]


class Document(BaseModel):
    """A document given as an object; only its text is read."""

    model_config = ConfigDict(extra="allow")

    text: Text


class RerankBody(BaseModel):
    """The request of Cohere, Jina, Voyage, vLLM and Infinity clients: `documents`, and how many.

    Fields that only other servers know are accepted and ignored, so that clients need no change.
    """

    model_config = ConfigDict(extra="ignore")

    query: Query
    documents: Annotated[list[Text | Document], Field(min_length=1)]
    model: str | None = None
    top_n: Annotated[int, Field(ge=0)] | None = Field(
        default=None, description="hits wanted; null or 0: all"
    )
    top_k: Annotated[int, Field(ge=0)] | None = Field(
        default=None, description="Voyage's word for top_n; its answer then has `data`, too"
    )
    return_documents: bool = False
    raw_scores: bool = Field(default=False, description="the model's own scores, not 0 to 1")
    explain: bool = Field(default=False, description="add decisions and timings to the answer")

    @property
    def texts(self) -> list[str]:
        """The documents' texts, in order."""
        return [
            document if isinstance(document, str) else document.text for document in self.documents
        ]

    @property
    def wanted(self) -> int | None:
        """How many hits to return, None for all."""
        return self.top_n or self.top_k or None

    @property
    def from_voyage(self) -> bool:
        """True if `top_k` is given, which Voyage's SDK always does, even to get all hits."""
        return "top_k" in self.model_fields_set


class TeiBody(BaseModel):
    """The request of a text-embeddings-inference client: `texts`, answered by a bare list."""

    model_config = ConfigDict(extra="ignore")

    query: Query
    texts: Annotated[list[Text], Field(min_length=1)]
    raw_scores: bool = False
    return_text: bool = False


def relevance(hit: Hit, *, raw: bool) -> float:
    """Return a hit's score in [0, 1], or the model's own score if `raw`.

    A hit without a score gets 0 (or nearly the lowest float32), below every hit with a score.
    """
    score = hit.score if raw else shown(hit, scale=True)
    if score is None:
        return -3.4e38 if raw else 0.0
    return score


def documents_answer(
    dialect: Dialect, body: RerankBody, result: Result, model: str
) -> dict[str, object]:
    """Return the answer that Cohere, Jina, Voyage, vLLM and Infinity clients all parse.

    Cohere reads `id`, `results` and `meta`; Voyage `data` and `usage`; the others `model`,
    `results` and `usage`.
    """
    texts = body.texts
    results: list[dict[str, object]] = []
    for hit in result.hits:
        item: dict[str, object] = {
            "index": hit.index,
            "relevance_score": relevance(hit, raw=body.raw_scores),
        }
        if body.return_documents and dialect != "cohere_v2":
            item["document"] = {"text": texts[hit.index]}
        results.append(item)
    answer: dict[str, object] = {
        "id": str(uuid.UUID(result.request_id)),
        "results": results,
        "meta": {
            "api_version": {"version": "2" if dialect == "cohere_v2" else "1"},
            "billed_units": {"search_units": 1.0},
            "tokens": {"input_tokens": float(result.usage.tokens)},
            "warnings": _warnings(result),
        },
    }
    if dialect != "cohere_v2":
        tokens = result.usage.tokens
        answer |= {
            "object": "rerank",
            "created": int(time.time()),
            "model": model,
            "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
        }
    if body.from_voyage:
        answer["data"] = results
    if body.explain:
        answer["explain"] = explanation(result)
    return answer


def tei_answer(body: TeiBody, result: Result) -> list[dict[str, object]]:
    """Return the answer of text-embeddings-inference: a list, best first."""
    return [
        {"index": hit.index, "score": relevance(hit, raw=body.raw_scores)}
        | ({"text": body.texts[hit.index]} if body.return_text else {})
        for hit in result.hits
    ]


def explanation(result: Result) -> dict[str, object]:
    """Return how the order came about: codes, counts and seconds, no text."""
    return {
        "degraded": result.degraded,
        "decisions": [
            {"step": decision.step, "code": decision.code.code, "count": decision.count}
            for decision in result.decisions
        ],
        "timings": [
            {"step": timing.step, "stage": timing.stage, "seconds": timing.seconds}
            for timing in result.timings
        ],
    }


def _warnings(result: Result) -> list[str]:
    if not result.degraded:
        return []
    codes = sorted({decision.code.code for decision in result.decisions})
    return [f"degraded: {', '.join(codes)}"]
