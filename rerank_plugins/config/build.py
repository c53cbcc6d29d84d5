"""Build a `Setup` from settings: load the scorers, make the stages, the rules and the guard."""

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
from ..rules.keep import Keep
from ..rules.residency import Policy
from ..rules.selection import Depth
from ..scoring import Scorer
from ..scoring.lexical import LexicalScorer
from ..scoring.models.files import LEXICAL, ModelFiles, find
from ..scoring.models.hub import Hub
from ..scoring.onnx import precision
from ..scoring.onnx.options import OnnxOptions
from ..scoring.onnx.scorer import OnnxScorer
from ..scoring.unavailable import MissingScorer
from ..telemetry import TelemetryOptions
from . import guard
from .exits import ModelStages, Risk, calibrated_exits, model_files, own_exits
from .remote_schema import RemoteSettings
from .schema import Settings, StageSettings
from .selection_schema import DepthSettings, KeepSettings
from .tables import record
from .vector_schema import EncoderSettings

# Loss that calibrated exits may cause where the settings name none.
_RISK = 0.01


def build_setup(
    settings: Settings,
    *,
    stages: tuple[Stage, ...] | None = None,
    policy: Policy | None = None,
) -> Setup:
    """Return what all requests share; loads the settings' models unless `stages` are given.

    Raises `ModelError` and `ConfigError`, also where the policy and the stages contradict each
    other.
    """
    if stages is None:
        may_miss = not settings.strict and any(
            stage.when == "fallback" for stage in settings.stages
        )
        models = [_load(stage, settings, may_miss=may_miss) for stage in settings.stages]
    else:
        models = [ModelStages(stages)]
    stages = tuple(stage for model in models for stage in model.stages)
    weight = settings.fusion.prior_weight
    if weight is None:
        weight = _card_prior_weight(stages)
    policy = policy or settings.policy.policy()
    chosen = settings.selection
    return Setup(
        stages=stages,
        prior_weight=weight,
        fusion=settings.fusion.method,
        depth=None if chosen.depth is None else _depth(chosen.depth, models[0]),
        skip=None if chosen.skip is None else chosen.skip.rule(),
        cut=None if chosen.cut is None else chosen.cut.rule(),
        top_k=chosen.top_k,
        budget=Budget(settings.budget.time_s),
        strict=settings.strict,
        when_cold=settings.service.when_cold,
        workers=settings.service.workers,
        max_requests=settings.service.max_requests,
        policy=policy,
        audit=None if policy.audit is None else AuditLog(policy.audit),
        telemetry=record(TelemetryOptions, settings.telemetry),
        planner=_planner(models),
        exit_audit=_exit_audit(settings, models),
        guard=guard.build(settings.guard, stages),
        full=guard.without_exits(stages),
    )


def scorer(settings: StageSettings, *, workers: int | None = None) -> Scorer:
    """Return the scorer that a stage names, loaded. Raises `ModelError` or `ConfigError`."""
    if isinstance(settings.scorer, RemoteSettings | EncoderSettings):
        return settings.scorer.scorer(_options(settings, workers), _hub(settings))
    if settings.scorer == LEXICAL:
        if settings.instruction is not None:
            raise ConfigError('scorer = "lexical" takes no instruction; leave it out')
        return LexicalScorer()
    files, options = _files(settings), _options(settings, workers)
    if settings.precision == "auto":
        int8 = settings.model_copy(update={"precision": "int8"})
        files = precision.choose(files, options, lambda: _files(int8))
    return OnnxScorer(files, options)


def _options(settings: StageSettings, workers: int | None) -> OnnxOptions:
    return record(OnnxOptions, settings, {"workers": workers})


def _files(settings: StageSettings) -> ModelFiles:
    return find(str(settings.scorer), precision=settings.precision, hub=_hub(settings))


def _hub(settings: StageSettings) -> Hub:
    token = os.environ.get(settings.token_env) if settings.token_env else None
    return Hub(settings.revision, settings.local_files_only, settings.cache_dir, token)


def _load(settings: StageSettings, whole: Settings, *, may_miss: bool) -> ModelStages:
    """Return the stage that a table describes or, where it has exits, a stage for each exit.

    With `may_miss`, a model that cannot be loaded becomes a scorer that fails each request.
    """
    made: Scorer
    if _risk(settings) is not None and not isinstance(settings.exits, Path):
        raise ConfigError(
            "keep = { risk = ... } needs exits = DIR, a folder of calibrated exits; make it with: "
            "rerank-plugins calibrate --out DIR"
        )
    try:
        if settings.exits is not None:
            return _load_exits(settings, settings.exits, whole)
        made = scorer(settings, workers=whole.service.workers)
    except ModelError as error:
        if not may_miss or not isinstance(settings.scorer, str):
            raise
        made = MissingScorer(settings.scorer, error)
    calibration = _calibration(settings, made.files.card if isinstance(made, OnnxScorer) else {})
    stage = Stage(made, _keep(settings.keep), when=settings.when, calibration=calibration)
    return ModelStages((stage,))


def _load_exits(settings: StageSettings, exits: list[int] | Path, whole: Settings) -> ModelStages:
    if not isinstance(settings.scorer, str) or settings.scorer == LEXICAL:
        raise ConfigError("exits are layers of a model that runs here; this stage has none")
    files, options = _files(settings), _options(settings, whole.service.workers)
    calibration = _calibration(settings, files.card)
    if isinstance(exits, Path):
        risk = Risk(_risk(settings) or _RISK, settings.exit_method, settings.exit_delta)
        weight = whole.fusion.prior_weight
        found = calibrated_exits(
            files,
            options,
            exits,
            risk,
            prior_weight=card_prior_weight(files.card) if weight is None else weight,
            calibration=calibration,
        )
    else:
        keep = _keep(settings.exit_keep)
        found = own_exits(files, options, tuple(exits), keep, calibration)
    last = replace(found.stages[-1], keep=_keep(settings.keep))
    stages = tuple(replace(stage, when=settings.when) for stage in (*found.stages[:-1], last))
    return replace(found, stages=stages)


def _risk(settings: StageSettings) -> float | None:
    return None if settings.keep is None else settings.keep.risk


def _keep(settings: KeepSettings | None) -> Keep | None:
    return None if settings is None else settings.rule()


def _depth(settings: DepthSettings, first: ModelStages) -> Depth:
    if settings.risk is None:
        return settings.rule()
    return first.depth(settings.risk, at_least=settings.min)


def _planner(models: Sequence[ModelStages]) -> Planner:
    """Return the planner; it knows qualities where the exits of the only model were calibrated."""
    exits = models[0].exits if len(models) == 1 else None
    return Planner() if exits is None else Planner(exits.plans, exits.short_plans)


def _exit_audit(settings: Settings, models: Sequence[ModelStages]) -> ExitAudit | None:
    audit = settings.exit_audit
    if not audit.share:
        return None
    regular = [model for model in models if model.stages[0].when == "always"]
    if len(regular) != 1:
        message = (
            f"exit_audit with {len(regular)} regular stages; expected one, with calibrated exits"
        )
        raise ConfigError(message)
    return regular[0].audit(audit.share, audit.adjust)


def _calibration(settings: StageSettings, card: Mapping[str, object]) -> Calibration | None:
    if settings.calibration is not None:
        return Calibration(*settings.calibration)
    return card_calibration(card)


def card_calibration(card: Mapping[str, object]) -> Calibration | None:
    """Return Platt's parameters from a model's card, None where it has none."""
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
    """Return the weight that a model's card gives the prior, 0 where it names none."""
    facts = card.get("fusion")
    weight = facts.get("prior_weight") if isinstance(facts, Mapping) else None
    return float(weight) if isinstance(weight, int | float) else 0.0
