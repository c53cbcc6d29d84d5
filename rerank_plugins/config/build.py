"""From settings to a `Setup`: every scorer, stage, rule and watcher that they name."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from ..adaptive.exit_audit import ExitAudit
from ..adaptive.planner import Planner
from ..core.setup import Setup
from ..core.stage import Stage
from ..errors import ConfigError, ModelError
from ..records import Budget
from ..remote.audit_log import AuditLog
from ..rules.calibration import Calibration
from ..rules.residency import Policy
from ..rules.selection import Depth
from ..scoring import Scorer
from ..scoring.lexical import LexicalScorer
from ..scoring.models.files import ModelFiles, find
from ..scoring.models.hub import Hub
from ..scoring.onnx import precision
from ..scoring.onnx.options import OnnxOptions
from ..scoring.onnx.scorer import OnnxScorer
from ..scoring.unavailable import MissingScorer
from ..telemetry import TelemetryOptions
from . import guard
from .exits import Exiting, Risk, calibrated_exits, model_files, own_exits
from .remote_schema import RemoteSettings
from .schema import FusionSettings, Settings, StageSettings, TelemetrySettings
from .selection_schema import DepthSettings

LEXICAL = "lexical"
# What calibrated exits may lose where the settings do not say.
_RISK = 0.01


def build_setup(
    settings: Settings,
    *,
    stages: tuple[Stage, ...] | None = None,
    policy: Policy | None = None,
) -> Setup:
    """Load every model that the settings name, unless given `stages`, and lay out the request.

    Raises `ConfigError`, also where the policy and the stages contradict each other.
    """
    if stages is None:
        helped = not settings.strict and any(one.when == "fallback" for one in settings.stages)
        parts = [_staged(one, settings.fusion, helped=helped) for one in settings.stages]
    else:
        parts = [Exiting(tuple(stages))]
    stages = tuple(stage for part in parts for stage in part.stages)
    weight = settings.fusion.prior_weight
    if weight is None:
        weight = _card_prior_weight(stages)
    policy = policy or settings.policy.policy()
    chosen = settings.selection
    return Setup(
        stages=stages,
        prior_weight=weight,
        fusion=settings.fusion.method,
        depth=None if chosen.depth is None else _depth(chosen.depth, parts[0]),
        skip=None if chosen.skip is None else chosen.skip.rule(),
        stop=None if chosen.stop is None else chosen.stop.rule(),
        cut=None if chosen.cut is None else chosen.cut.rule(parts[-1].nulls),
        top_k=chosen.top_k,
        budget=Budget(settings.budget.time_s),
        strict=settings.strict,
        when_cold=settings.service.when_cold,
        workers=settings.service.workers,
        max_requests=settings.service.max_requests,
        policy=policy,
        audit=None if policy.audit is None else AuditLog(policy.audit),
        telemetry=_telemetry(settings.telemetry),
        planner=Planner(parts[0].plans, parts[0].short_plans) if len(parts) == 1 else Planner(),
        exit_audit=_exit_audit(settings, parts),
        guard=guard.made(settings.guard, stages),
        full=guard.full(stages),
    )


def scorer(settings: StageSettings) -> Scorer:
    """Load the scorer that a stage names. Raises `ModelError` or `ConfigError`."""
    if isinstance(settings.scorer, RemoteSettings):
        return settings.scorer.scorer(_options(settings), _hub(settings))
    if settings.scorer == LEXICAL:
        if settings.instruction is not None:
            raise ConfigError('scorer = "lexical" takes no instruction; leave it out')
        return LexicalScorer()
    files, options = _files(settings), _options(settings)
    if settings.precision == "auto":
        int8 = settings.model_copy(update={"precision": "int8"})
        files = precision.choose(files, options, lambda: _files(int8))
    return OnnxScorer(files, options)


def _files(settings: StageSettings) -> ModelFiles:
    return find(str(settings.scorer), precision=settings.precision, hub=_hub(settings))


def _hub(settings: StageSettings) -> Hub:
    token = os.environ.get(settings.token_env) if settings.token_env else None
    return Hub(settings.revision, settings.local_files_only, settings.cache_dir, token)


def _options(settings: StageSettings) -> OnnxOptions:
    return OnnxOptions(
        max_tokens=settings.max_tokens,
        long=settings.long,
        fold=settings.fold,
        window_tokens=settings.window_tokens,
        window_overlap=settings.window_overlap,
        max_windows=settings.max_windows,
        provider=settings.provider,
        intra_threads=settings.intra_threads,
        max_batch_tokens=settings.max_batch_tokens,
        token_cache_bytes=settings.token_cache_bytes,
        score_cache_bytes=settings.score_cache_bytes,
        score_column=settings.score_column,
        rewrite=settings.rewrite,
        graph_cache=settings.graph_cache,
        template=settings.template,
        instruction=settings.instruction,
    )


def _staged(settings: StageSettings, fusing: FusionSettings, *, helped: bool) -> Exiting:
    """Load the stage or, where it has exits, the stages that a table stands for.

    Where a fallback can help, a model that cannot be had fails its requests.
    """
    made: Scorer
    risky = settings.keep is not None and settings.keep.risk is not None
    if risky and not isinstance(settings.exits, Path):
        raise ConfigError(
            "keep = { risk = ... } needs exits = DIR, a folder of calibrated exits; make it with: "
            "rerank-plugins calibrate --out DIR"
        )
    try:
        if settings.exits is not None:
            return _exiting(settings, settings.exits, fusing)
        made = scorer(settings)
    except ModelError as error:
        if not helped or not isinstance(settings.scorer, str):
            raise
        made = MissingScorer(settings.scorer, error)
    calibration = _calibration(settings, made.files.card if isinstance(made, OnnxScorer) else {})
    keep = None if settings.keep is None else settings.keep.rule()
    return Exiting((Stage(made, keep=keep, when=settings.when, calibration=calibration),))


def _exiting(settings: StageSettings, exits: list[int] | Path, fusing: FusionSettings) -> Exiting:
    if isinstance(settings.scorer, RemoteSettings) or settings.scorer == LEXICAL:
        raise ConfigError("exits are layers of a model that runs here; this stage has none")
    files, options = _files(settings), _options(settings)
    calibration = _calibration(settings, files.card)
    if isinstance(exits, Path):
        keep = settings.keep
        risk = Risk(
            keep.risk if keep is not None and keep.risk is not None else _RISK,
            settings.exit_method,
            settings.exit_delta,
        )
        weight = fusing.prior_weight
        found = calibrated_exits(
            files,
            options,
            exits,
            risk,
            prior_weight=card_prior_weight(files.card) if weight is None else weight,
            calibration=calibration,
        )
    else:
        behind = None if settings.exit_keep is None else settings.exit_keep.rule()
        found = own_exits(files, options, tuple(exits), behind, calibration)
    keep_last = None if settings.keep is None else settings.keep.rule()
    last = replace(found.stages[-1], keep=keep_last)
    stages = tuple(replace(one, when=settings.when) for one in (*found.stages[:-1], last))
    return replace(found, stages=stages)


def _depth(settings: DepthSettings, first: Exiting) -> Depth:
    if settings.risk is None:
        return settings.rule()
    return first.depth(settings.risk, least=settings.min)


def _exit_audit(settings: Settings, parts: Sequence[Exiting]) -> ExitAudit | None:
    asked = settings.exit_audit
    if not asked.share:
        return None
    regular = [part for part in parts if part.stages[0].when == "always"]
    if len(regular) != 1:
        message = (
            f"exit_audit with {len(regular)} regular stages; expected one, with calibrated exits"
        )
        raise ConfigError(message)
    return regular[0].audit(asked.share, asked.adjust)


def _calibration(settings: StageSettings, card: Mapping[str, object]) -> Calibration | None:
    if settings.calibration is not None:
        return Calibration(*settings.calibration)
    return card_calibration(card)


def _telemetry(settings: TelemetrySettings) -> TelemetryOptions:
    return TelemetryOptions(
        enabled=settings.enabled,
        content=settings.content,
        max_documents=settings.max_documents,
        max_chars=settings.max_chars,
        slow_s=None if settings.slow_ms is None else settings.slow_ms / 1e3,
    )


def card_calibration(card: Mapping[str, object]) -> Calibration | None:
    """Read Platt's parameters off a model's card, None where it has none."""
    facts = card.get("calibration")
    if not isinstance(facts, Mapping):
        return None
    a, b = facts.get("a"), facts.get("b")
    if isinstance(a, int | float) and isinstance(b, int | float):
        return Calibration(float(a), float(b))
    return None


def _card_prior_weight(stages: tuple[Stage, ...]) -> float:
    planned = [stage for stage in stages if stage.when == "always"]
    files = model_files(planned[-1]) if planned else None
    return card_prior_weight(files.card) if files is not None else 0.0


def card_prior_weight(card: Mapping[str, object]) -> float:
    """Read how much of a say a model's card gives the prior, 0 where it does not."""
    facts = card.get("fusion")
    weight = facts.get("prior_weight") if isinstance(facts, Mapping) else None
    return float(weight) if isinstance(weight, int | float) else 0.0
