"""One LangChain run per reranking, and the core's spans beneath it.

Compressors are not runnables, so that tracers see nothing of them unless they start a run
themselves; and tracers do not make their spans current, so that ours would start a second trace.
"""

from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from langchain_core.callbacks import AsyncCallbackManager, CallbackManager, Callbacks
from langchain_core.documents import Document
from langchain_core.runnables import ensure_config
from opentelemetry import context, trace

_NAME = "RerankPluginsCompressor"


@dataclass(slots=True)
class Outcome:
    """What the run ends with: the documents, and what the engine says about the request."""

    documents: list[Document] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)


@contextmanager
def run(callbacks: Callbacks, query: str, documents: Sequence[Document]) -> Iterator[Outcome]:
    """Report a reranking as a child run of whatever `callbacks` belong to."""
    manager = CallbackManager.configure(inheritable_callbacks=_given_or_ambient(callbacks))
    inputs = {"query": query, "documents": list(documents)}
    running = manager.on_chain_start(None, inputs, name=_NAME)
    outcome = Outcome()
    try:
        with _current_span(running.handlers, running.run_id):
            yield outcome
    except BaseException as error:
        running.on_chain_error(error)
        raise
    running.on_chain_end({"documents": outcome.documents, "facts": outcome.facts})


@asynccontextmanager
async def arun(
    callbacks: Callbacks, query: str, documents: Sequence[Document]
) -> AsyncIterator[Outcome]:
    """Do what `run` does, for asynchronous callbacks."""
    manager = AsyncCallbackManager.configure(inheritable_callbacks=_given_or_ambient(callbacks))
    inputs = {"query": query, "documents": list(documents)}
    running = await manager.on_chain_start(None, inputs, name=_NAME)
    outcome = Outcome()
    try:
        with _current_span(running.handlers, running.run_id):
            yield outcome
    except BaseException as error:
        await running.on_chain_error(error)
        raise
    await running.on_chain_end({"documents": outcome.documents, "facts": outcome.facts})


def _given_or_ambient(callbacks: Callbacks) -> Callbacks:
    """Inside a tool or a lambda nobody hands callbacks on; the enclosing run's are ambient."""
    return ensure_config().get("callbacks") if callbacks is None else callbacks


@contextmanager
def _current_span(handlers: Sequence[object], run_id: UUID) -> Iterator[None]:
    """Make the span that a tracer keeps for this run current, if one does."""
    getters = (getattr(handler, "get_span", None) for handler in handlers)
    spans = (get_span(run_id) for get_span in getters if callable(get_span))
    span = next((one for one in spans if isinstance(one, trace.Span)), None)
    if span is None:
        yield
        return
    token = context.attach(trace.set_span_in_context(span))
    try:
        yield
    finally:
        context.detach(token)
