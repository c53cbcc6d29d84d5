"""A LangChain run for each reranking, with the engine's spans below it.

Compressors are not runnables: without a run of their own, tracers do not see them. And tracers do
not make their spans current: without that, the engine's spans would start a second trace.
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
    """What the run returns: the documents, and what the engine says about the request."""

    documents: list[Document] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)


@contextmanager
def run(callbacks: Callbacks, query: str, documents: Sequence[Document]) -> Iterator[Outcome]:
    """Report a reranking as a child run of the run that `callbacks` belong to."""
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
    """Return the callbacks, else the enclosing run's: tools and lambdas do not pass them on."""
    return ensure_config().get("callbacks") if callbacks is None else callbacks


@contextmanager
def _current_span(handlers: Sequence[object], run_id: UUID) -> Iterator[None]:
    """Make a tracer's span of this run current, if a tracer has one."""
    getters = (getattr(handler, "get_span", None) for handler in handlers)
    spans = (get_span(run_id) for get_span in getters if callable(get_span))
    span = next((span for span in spans if isinstance(span, trace.Span)), None)
    if span is None:
        yield
        return
    token = context.attach(trace.set_span_in_context(span))
    try:
        yield
    finally:
        context.detach(token)
