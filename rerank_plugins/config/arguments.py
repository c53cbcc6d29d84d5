"""The arguments of `Reranker(...)` as settings; arguments that exclude each other are refused."""

from collections.abc import Mapping
from typing import cast

from ..core.setup import Setup
from ..core.stage import Stage
from ..errors import ConfigError
from ..rules.residency import Policy
from ..scoring.models.files import EMBEDDED

# Arguments that are keys of a stage's table.
_OF_STAGE = (
    "max_tokens",
    "long",
    "fold",
    "instruction",
    "precision",
    "provider",
    "revision",
    "local_files_only",
    "cache_dir",
)
# Arguments that are keys of other tables: the table and the key.
_OF_TABLES: Mapping[str, tuple[str, str]] = {
    "prior_weight": ("fusion", "prior_weight"),
    "depth": ("selection", "depth"),
    "top_k": ("selection", "top_k"),
    "budget_ms": ("budget", "time_ms"),
    "when_cold": ("service", "when_cold"),
    "workers": ("service", "workers"),
}
_BESIDE_SETUP = frozenset({"tracer_provider", "meter_provider", "redact", "clock"})
_BESIDE_STAGES = _BESIDE_SETUP | {"stages", "policy", "strict", *_OF_TABLES}


def setup_of(given: Mapping[str, object], defaults: Mapping[str, object]) -> Setup:
    """Return the setup that a reranker's arguments describe.

    given: every argument by its name
    defaults: the defaults of all arguments but `model`

    Raises `ConfigError` and `ModelError`.
    """
    _check(given, defaults)
    model = given["model"]
    if isinstance(model, Setup):
        return model
    # Here, because pydantic is a third of the import time.
    from .build import build_setup
    from .read import parse_settings

    tables: dict[str, dict[str, object]] = {}
    for name, (table, key) in _OF_TABLES.items():
        tables.setdefault(table, {})[key] = given[name]
    data: dict[str, object] = {**tables, "strict": given["strict"]}
    stages = cast("tuple[Stage, ...] | None", given["stages"])
    if stages is None:
        stage = {name: given[name] for name in _OF_STAGE}
        data["stages"] = [{"scorer": str(model), **stage}]
    return build_setup(
        parse_settings(data, "Reranker(...)"),
        stages=None if stages is None else tuple(stages),
        policy=cast("Policy | None", given["policy"]),
    )


def _check(given: Mapping[str, object], defaults: Mapping[str, object]) -> None:
    """Raise `ConfigError` for arguments that a `Setup`, or stages, would leave without effect."""
    if isinstance(given["model"], Setup):
        what, allowed = "a Setup", _BESIDE_SETUP
        advice = "write them into the Setup"
    elif given["stages"] is not None:
        what, allowed = "stages", _BESIDE_STAGES
        advice = "write them into the scorers of the stages"
    else:
        return
    ignored = [name for name in defaults if name not in allowed and given[name] != defaults[name]]
    if what == "stages" and given["model"] != EMBEDDED:
        ignored.insert(0, "model")
    if ignored:
        message = (
            f"{what} and {', '.join(ignored)} are given, which would have no effect; {advice}, or "
            "leave them out"
        )
        raise ConfigError(message)
