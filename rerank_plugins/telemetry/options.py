"""What is observed beyond spans and metrics: content, and what counts as slow."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

Redact: TypeAlias = Callable[[str], str]
"""Rewrites a text before it is written to a span; an error in it withholds the text."""

REDACTED = "__REDACTED__"
_CONTENT = "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT"
_ON = frozenset({"true", "1", "span_only", "span_and_event"})
_HIDE_INPUTS = ("OPENINFERENCE_HIDE_INPUTS", "OPENINFERENCE_HIDE_INPUT_TEXT")
_HIDE_OUTPUTS = ("OPENINFERENCE_HIDE_OUTPUTS", "OPENINFERENCE_HIDE_OUTPUT_TEXT")


@dataclass(frozen=True, slots=True)
class TelemetryOptions:
    """How much is told.

    `content` puts query and documents on spans; None leaves it to the environment's
    OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT, which is off unless set. At most
    `max_documents` of the candidates and as many of the hits, each cut to `max_chars`. Requests
    that take `slow_s` or longer are logged, without text.
    """

    enabled: bool = True
    content: bool | None = None
    max_documents: int = 10
    max_chars: int = 2000
    slow_s: float | None = None


@dataclass(frozen=True, slots=True)
class Content:
    """What of a request's text may be written, and how."""

    max_documents: int
    max_chars: int
    hide_inputs: bool = False
    hide_outputs: bool = False
    redact: Redact | None = None

    def text(self, text: str | None, *, hidden: bool) -> str:
        """Give `text` as it may be written."""
        if hidden:
            return REDACTED
        text = text if isinstance(text, str) else ""
        try:
            shown = self.redact(text) if self.redact is not None else text
            cut = shown[: self.max_chars]
        except Exception:  # noqa: BLE001 - a hook of the user's that fails must not leak or raise
            return REDACTED
        # Lone surrogates cannot be exported and would take the whole span with them.
        return cut.encode("utf-8", "replace").decode("utf-8")


def content(
    options: TelemetryOptions, environment: Mapping[str, str], redact: Redact | None
) -> Content | None:
    """Decide whether content is written (None: it is not) from the options, then the environment.

    OpenInference's switches for hiding inputs and outputs hold here too.
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
