"""The attributes of a request's spans: pure functions of its records."""

from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from concurrent.futures import CancelledError
from dataclasses import dataclass
from typing import TypeAlias

from .. import semconv
from ..records import Hit, Request, Result, StageRun, Usage
from ..scoring import Scorer, Sends
from .options import Content
from .timeline import CALL, Step, is_remote, layout

Value: TypeAlias = str | bool | int | float | Sequence[str]
Attributes: TypeAlias = dict[str, Value]


@dataclass(frozen=True, slots=True)
class Child:
    """A child span to draw; it starts and ends at seconds since submission."""

    name: str
    start_s: float
    end_s: float
    attributes: Attributes
    error: str | None = None


def fixed(stages: Sequence[Scorer], regions: Sequence[str] | None) -> Attributes:
    """Return the attributes that every request of a reranker shares."""
    model = " > ".join(stage.name for stage in stages)
    destinations = [stage.destination.origin for stage in stages if isinstance(stage, Sends)]
    attributes: Attributes = {
        semconv.OPERATION_NAME: semconv.OPERATION,
        semconv.PROVIDER_NAME: semconv.SCOPE,
        semconv.REQUEST_MODEL: model,
        semconv.OI_KIND: "RERANKER",
        semconv.OI_MODEL: model,
        semconv.STAGES: [stage.name for stage in stages],
    }
    if destinations:
        attributes[semconv.DESTINATIONS] = destinations
    if regions is not None:
        attributes[semconv.REGIONS] = list(regions)
    return attributes


def at_start(request: Request, *, top_k: int | None, budget_s: float | None) -> Attributes:
    """Return the attributes known at the start, which a sampler can decide by."""
    n = len(request.candidates)
    wanted = n if top_k is None else min(top_k, n)
    attributes: Attributes = {
        semconv.CANDIDATES: n,
        semconv.CANDIDATE_COUNT: n,
        semconv.TOP_N: wanted,
        semconv.OI_TOP_K: wanted,
    }
    if budget_s is not None:
        attributes[semconv.BUDGET] = budget_s
    return attributes


def at_end(result: Result) -> Attributes:
    """Return the attributes that the result adds."""
    waited = sum(timing.seconds for timing in result.timings if timing.step == "queue")
    attributes: Attributes = {
        semconv.REQUEST_ID: result.request_id,
        semconv.DEGRADED: result.degraded,
        semconv.DEPTH: result.stages[0].candidates if result.stages else 0,
        semconv.RETURNED: len(result.hits),
        semconv.INPUT_TOKENS: result.usage.tokens,
        semconv.QUEUE_WAIT: waited,
        semconv.DECISIONS: decisions(result),
        **outcome(result, None),
        **used(result.usage),
    }
    if result.predicted_s is not None:
        attributes[semconv.PREDICTED] = result.predicted_s
    return attributes


def outcome(result: Result | None, error: BaseException | None) -> dict[str, str]:
    """Return how a request ended, with the type of its error where it has no result."""
    if result is not None:
        return {semconv.OUTCOME: "degraded" if result.degraded else "ok"}
    ended = "cancelled" if isinstance(error, CancelledError) else "error"
    return {semconv.OUTCOME: ended, semconv.ERROR_TYPE: type(error).__name__}


def decisions(result: Result) -> list[str]:
    """Return decisions without their detail, which may quote a caller or a remote server."""
    return [
        f"{decision.step}:{decision.code.code}:{decision.count}" for decision in result.decisions
    ]


def used(usage: Usage) -> Attributes:
    """Return what a request or a stage cost."""
    attributes: Attributes = {
        semconv.PAIRS: usage.pairs,
        semconv.TOKENS: usage.tokens,
        semconv.TRUNCATED: usage.truncated_tokens,
        semconv.PADDING: padding_share(usage),
        semconv.BATCHES: usage.batches,
        semconv.CACHED_PASSAGES: usage.token_cache_hits,
        semconv.CACHED_PAIRS: usage.score_cache_hits,
    }
    if usage.remote_calls:
        attributes[semconv.REMOTE_CALLS] = usage.remote_calls
        attributes[semconv.BILLED] = usage.billed_units
    return attributes


def padding_share(usage: Usage) -> float:
    """Return the share of padding in all computed tokens, in [0, 1]."""
    return usage.padding_tokens / max(1, usage.tokens + usage.padding_tokens)


def children(result: Result) -> list[Child]:
    """Return the steps of a request as spans.

    A stage with no "score" step, or with several, becomes one span with all its counts.
    """
    steps = layout(result.timings)
    scores = [step.place for step in steps if step.name == "score"]
    detailed = {place for place in scores if scores.count(place) == 1}
    return [_child(step, result.stages) for step in steps if _is_span(step, detailed)]


def _is_span(step: Step, detailed: AbstractSet[int | None]) -> bool:
    """True if a step is a span; `detailed` are the places of stages whose steps are spans."""
    if step.name == "stage":
        return step.place not in detailed
    if step.name in {"queue", CALL} or is_remote(step.name):
        # Waiting is an attribute; a remote call had its span while it ran.
        return False
    return step.stage is None or step.place in detailed


def _child(step: Step, runs: Sequence[StageRun]) -> Child:
    attributes: Attributes = {}
    error: str | None = None
    name = "score" if step.name == "stage" else step.name
    if step.stage is not None:
        attributes[semconv.STAGE] = step.stage
    if name == "score" and step.place is not None and step.place < len(runs):
        run = runs[step.place]
        error = run.error
        attributes |= {
            semconv.STAGE_CANDIDATES: run.candidates,
            semconv.STAGE_SCORED: run.scored,
            **used(run.usage),
        }
        if error is not None:
            attributes[semconv.ERROR_TYPE] = error
    return Child(f"rerank.{name}", step.start_s, step.end_s, attributes, error)


def of_content(content: Content, request: Request, hits: Sequence[Hit]) -> Attributes:
    """Return query and documents as attributes, within the limits of `content`.

    Inputs are in first-stage order with their priors, outputs in the result's order with its
    scores. A document's id is its position among the candidates.
    """
    query = content.text(request.query, hidden=content.hide_inputs)
    attributes: Attributes = {semconv.OI_QUERY: query, semconv.OI_INPUT: query}
    for i, candidate in enumerate(request.candidates[: content.max_documents]):
        text = content.text(candidate.text, hidden=content.hide_inputs)
        attributes |= _document(semconv.OI_INPUTS, i, i, text, candidate.prior)
    for i, hit in enumerate(hits[: content.max_documents]):
        text = content.text(request.candidates[hit.index].text, hidden=content.hide_outputs)
        attributes |= _document(semconv.OI_OUTPUTS, i, hit.index, text, hit.score)
    left_out = max(len(request.candidates), len(hits)) - content.max_documents
    attributes[semconv.DOCUMENTS_LEFT_OUT] = max(0, left_out)
    return attributes


def _document(family: str, place: int, index: int, text: str, score: float | None) -> Attributes:
    prefix = f"{family}.{place}.document"
    attributes: Attributes = {f"{prefix}.id": str(index), f"{prefix}.content": text}
    if score is not None:
        attributes[f"{prefix}.score"] = float(score)
    return attributes
