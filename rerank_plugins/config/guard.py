"""Build the guard that settings ask for, and identify the models that it watches."""

import hashlib
import itertools
import json
from collections.abc import Sequence
from dataclasses import replace

from ..core.stage import Stage
from ..errors import ConfigError
from ..quality.drift.snapshot import load, require
from ..quality.drift.verdict import DriftThresholds
from ..quality.guard.guard import Guard
from ..quality.guard.stance import GuardOptions
from ..scoring.exits.scorer import ExitScorer
from ..scoring.onnx.scorer import OnnxScorer
from .exits import model_files
from .schema import GuardSettings
from .tables import record


def build(settings: GuardSettings | None, stages: Sequence[Stage]) -> Guard | None:
    """Return the guard, None without settings.

    Raises `ConfigError`, and `ModelError` for another model's snapshot.
    """
    if settings is None:
        return None
    if settings.action == "fallback" and all(stage.when == "always" for stage in stages):
        raise ConfigError(
            'guard.action is "fallback" and no stage has when = "fallback"; add one, or choose '
            '"first_stage", "raise_prior" or "disable_exits"'
        )
    if settings.action == "disable_exits" and not without_exits(stages):
        raise ConfigError(
            'guard.action is "disable_exits" and no stage has exits; choose "first_stage", '
            '"raise_prior" or "fallback"'
        )
    reference = None
    if settings.snapshot is not None:
        reference = load(settings.snapshot)
        require(reference, subject(stages), settings.snapshot)
    given = {"thresholds": DriftThresholds(alpha=settings.alpha)}
    return Guard(record(GuardOptions, settings, given), reference)


def without_exits(stages: Sequence[Stage]) -> tuple[Stage, ...]:
    """Return the stages so that every candidate passes every exit; empty if there are no exits."""
    scorers = [stage.scorer for stage in stages]
    places = [
        place
        for place, (scorer, following) in enumerate(itertools.pairwise(scorers))
        if isinstance(scorer, ExitScorer)
        and isinstance(following, ExitScorer)
        and scorer.model is following.model
    ]
    if not places:
        return ()
    return tuple(
        replace(stage, keep=None) if place in places else stage
        for place, stage in enumerate(stages)
    )


def subject(stages: Sequence[Stage]) -> str:
    """Return a hash of the stages as they run: names, weights, tokenizers and limits."""
    return hashlib.sha256(json.dumps([_identity(stage) for stage in stages]).encode()).hexdigest()


def _identity(stage: Stage) -> list[str]:
    scorer, files = stage.scorer, model_files(stage)
    if files is None:
        return [scorer.name, stage.when, repr(stage.keep)]
    limit = scorer.max_tokens if isinstance(scorer, OnnxScorer) else 0
    if isinstance(scorer, ExitScorer):
        limit = scorer.model.max_tokens
    return [
        files.graph_file.sha256() + (" int8" if files.int8 else ""),
        files.tokenizer_sha256(),
        str(limit),
        stage.when,
        repr(stage.keep),
    ]
