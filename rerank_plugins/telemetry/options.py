"""What telemetry writes: whether text goes on spans, and which requests count as slow."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

Redact: TypeAlias = Callable[[str], str]
"""Rewrites a text before it is written to a span; where it raises, the text is withheld."""

REDACTED = "__REDACTED__"
_CONTENT = "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT"
_ON = frozenset({"true", "1", "span_only", "span_and_event"})
_HIDE_INPUTS = ("OPENINFERENCE_HIDE_INPUTS", "OPENINFERENCE_HIDE_INPUT_TEXT")
_HIDE_OUTPUTS = ("OPENINFERENCE_HIDE_OUTPUTS", "OPENINFERENCE_HIDE_OUTPUT_TEXT")


@dataclass(frozen=True, slots=True)
class TelemetryOptions:
    """How much telemetry writes.

    content: whether query and documents go on spans; None: as the environment variable
        OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT says, which is off unless set
    max_documents: most candidates on a span, and most hits
    max_chars: characters of each text at most
    slow_s: requests that take this many seconds or longer are logged, without text
    """

    enabled: bool = True
    content: bool | None = None
    max_documents: int = 10
    max_chars: int = 2000
    slow_s: float | None = None


@dataclass(frozen=True, slots=True)
class Content:
    """How a request's text is written to its span."""

    max_documents: int
    max_chars: int
    hide_inputs: bool = False
    hide_outputs: bool = False
    redact: Redact | None = None

    def text(self, text: str | None, *, hidden: bool) -> str:
        """Return `text` as it may be written."""
        if hidden:
            return REDACTED
        text = text if isinstance(text, str) else ""
        try:
            shown = self.redact(text) if self.redact is not None else text
            cut = shown[: self.max_chars]
        except Exception:  # noqa: BLE001 - a user's hook that fails must not leak text or raise
            return REDACTED
        # Lone surrogates cannot be exported and would take the whole span with them.
        return cut.encode("utf-8", "replace").decode("utf-8")


def content(
    options: TelemetryOptions, environment: Mapping[str, str], redact: Redact | None
) -> Content | None:
    """Return how text is written, by the options, then the environment; None: it is not.

    OpenInference's switches that hide inputs and outputs are respected.
    """
    wanted = options.content
    if wanted is None:
        wanted = environment.get(_CONTENT, "").strip().lower() in _ON
    if not wanted:
        return None
    return Content(
        options.max_documents,
        options.max_chars,
        hide_inputs=_any_set(environment, _HIDE_INPUTS),
        hide_outputs=_any_set(environment, _HIDE_OUTPUTS),
        redact=redact,
    )


def _any_set(environment: Mapping[str, str], names: tuple[str, ...]) -> bool:
    return any(environment.get(name, "").strip().lower() in {"true", "1"} for name in names)
