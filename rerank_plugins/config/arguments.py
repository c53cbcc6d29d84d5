"""Options beside something that leaves no room for them: refused, since nobody would hear them."""

from collections.abc import Mapping

from ..core.setup import Setup
from ..errors import ConfigError
from ..scoring.models.files import EMBEDDED

_OBSERVING = frozenset({"tracer_provider", "meter_provider", "redact", "clock"})

_REQUESTS = frozenset(
    {
        "stages",
        "policy",
        "prior_weight",
        "depth",
        "top_k",
        "budget_ms",
        "strict",
        "when_cold",
        "workers",
    }
)


def check(given: Mapping[str, object], defaults: Mapping[str, object]) -> None:
    """Refuse what a reranker is given beside a `Setup`, or of a model beside stages.

    `given` are its arguments, `defaults` those of all but `model`. Raises `ConfigError`.
    """
    if isinstance(given["model"], Setup):
        what, allowed = "a Setup", _OBSERVING
        advice = "write them into the Setup"
    elif given["stages"] is not None:
        what, allowed = "stages", _OBSERVING | _REQUESTS
        advice = "write them into the scorers of the stages"
    else:
        return
    beside = [name for name in defaults if name not in allowed and given[name] != defaults[name]]
    if what == "stages" and given["model"] != EMBEDDED:
        beside.insert(0, "model")
    if beside:
        message = (
            f"{what} and {', '.join(beside)} are given, which would have no effect; {advice}, or "
            "leave them out"
        )
        raise ConfigError(message)
