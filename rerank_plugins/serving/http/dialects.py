"""What each client dialect sends and expects back, as data."""

import time
import uuid
from collections.abc import Sequence
from typing import Annotated, Literal, TypeAlias

import msgspec
from msgspec import UNSET, Meta, Raw, UnsetType

from ...records import Candidate, Hit, Result
from .admission import Limits

Dialect: TypeAlias = Literal["cohere_v2", "jina", "tei"]


# The lists are decoded by themselves, so their schema is written here.
_TEXT = {"type": "string", "maxLength": Limits().max_text_chars}
_DOCUMENT = {"$ref": "#/components/schemas/Document"}


def _array(items: object) -> Meta:
    schema = {"type": "array", "minItems": 1, "maxItems": Limits().max_candidates, "items": items}
    return Meta(extra_json_schema=schema)


Text: TypeAlias = Annotated[str, Meta(extra_json_schema={"maxLength": Limits().max_text_chars})]
Query: TypeAlias = Annotated[str, Meta(min_length=1, max_length=100_000)]
Count: TypeAlias = Annotated[int, Meta(ge=0)]


class Document(msgspec.Struct, gc=False):
    """A document given as an object; its text is scored, and its residency label is obeyed.

    label: under the policy's `residency_key`, here or in `metadata` or `meta`
    """

    text: Text
    label: Raw | UnsetType = msgspec.field(default=UNSET, name="residency")
    metadata: Raw | UnsetType = UNSET
    meta: Raw | UnsetType = UNSET


class RerankBody(msgspec.Struct):
    """The request of Cohere, Jina, Voyage, vLLM and Infinity clients: `documents`, and how many.

    Fields that only other servers know are accepted and ignored, so that clients need no change.
    """

    query: Query
    documents: Annotated[Raw, _array({"anyOf": [_TEXT, _DOCUMENT]})]
    model: str | None = None
    top_n: Annotated[Count | None, Meta(description="hits wanted; null or 0: all")] = None
    top_k: Annotated[
        Count | UnsetType | None,
        Meta(description="Voyage's word for top_n; its answer then has `data`, too"),
    ] = UNSET
    return_documents: bool = False
    raw_scores: Annotated[bool, Meta(description="the model's own scores, not 0 to 1")] = False
    explain: Annotated[bool, Meta(description="add decisions and timings to the answer")] = False

    @property
    def wanted(self) -> int | None:
        """How many hits to return, None for all."""
        return self.top_n or self.top_k or None

    @property
    def from_voyage(self) -> bool:
        """True if `top_k` is given, which Voyage's SDK always does, even to get all hits."""
        return self.top_k is not UNSET


class TeiBody(msgspec.Struct):
    """The request of a text-embeddings-inference client: `texts`, answered by a bare list."""

    query: Query
    texts: Annotated[Raw, _array(_TEXT)]
    raw_scores: bool = False
    return_text: bool = False


def relevance(hit: Hit, *, raw: bool) -> float:
    """Return a hit's score in [0, 1], or the model's own score if `raw`.

    A hit without a score gets 0 (or nearly the lowest float32), below every hit with a score.
    """
    score = hit.score if raw else hit.relevance
    if score is None:
        return -3.4e38 if raw else 0.0
    return score


def documents_answer(
    dialect: Dialect, body: RerankBody, candidates: Sequence[Candidate], result: Result
) -> dict[str, object]:
    """Return the answer that Cohere, Jina, Voyage, vLLM and Infinity clients all parse.

    Cohere reads `id`, `results` and `meta`; Voyage `data` and `usage`; the others `model`,
    `results` and `usage`.
    """
    results: list[dict[str, object]] = []
    for hit in result.hits:
        item: dict[str, object] = {
            "index": hit.index,
            "relevance_score": relevance(hit, raw=body.raw_scores),
        }
        if body.return_documents and dialect != "cohere_v2":
            item["document"] = {"text": candidates[hit.index].text}
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
            "model": body.model or result.model,
            "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
        }
    if body.from_voyage:
        answer["data"] = results
    if body.explain:
        answer["explain"] = explanation(result)
    return answer


def tei_answer(
    body: TeiBody, candidates: Sequence[Candidate], result: Result
) -> list[dict[str, object]]:
    """Return the answer of text-embeddings-inference: a list, best first."""
    return [
        {"index": hit.index, "score": relevance(hit, raw=body.raw_scores)}
        | ({"text": candidates[hit.index].text} if body.return_text else {})
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
