"""The guard that settings ask for, and what identifies the models that it watches."""

import hashlib
import itertools
import json
from collections.abc import Sequence
from dataclasses import replace

from ..core.stage import Stage
from ..errors import ConfigError
from ..quality.drift import Watch
from ..quality.guard import Guard, GuardOptions, load, require
from ..scoring.exits.scorer import ExitScorer
from ..scoring.models.files import sha256
from ..scoring.onnx.scorer import OnnxScorer
from .exits import model_files
from .schema import GuardSettings


def made(settings: GuardSettings | None, stages: Sequence[Stage]) -> Guard | None:
    """Make the guard. Raises `ConfigError`, and `ModelError` for another model's snapshot."""
    if settings is None:
        return None
    if settings.action == "fallback" and all(one.when == "always" for one in stages):
        raise ConfigError(
            'guard.action is "fallback" and no stage has when = "fallback"; add one, or choose '
            '"first_stage", "raise_prior" or "disable_exits"'
        )
    if settings.action == "disable_exits" and not full(stages):
        raise ConfigError(
            'guard.action is "disable_exits" and no stage has exits; choose "first_stage", '
            '"raise_prior" or "fallback"'
        )
    reference = None
    if settings.snapshot is not None:
        reference = load(settings.snapshot)
        require(reference, subject(stages), settings.snapshot)
    options = GuardOptions(
        do_no_harm=settings.do_no_harm,
        action=settings.action,
        prior_weight=settings.prior_weight,
        window=settings.window,
        learn=settings.learn,
        patience=settings.patience,
        relief=settings.relief,
        probe_every=settings.probe_every,
        control_share=settings.control_share,
        null_every=settings.null_every,
        canary_every=settings.canary_every,
        watch=Watch(alpha=settings.alpha),
        log=settings.log,
    )
    return Guard(options, reference)


def full(stages: Sequence[Stage]) -> tuple[Stage, ...]:
    """Give the stages with every exit passed by every candidate; empty where there are none."""
    scorers = [stage.scorer for stage in stages]
    places = [
        place
        for place, (one, following) in enumerate(itertools.pairwise(scorers))
        if isinstance(one, ExitScorer)
        and isinstance(following, ExitScorer)
        and one.trunk is following.trunk
    ]
    if not places:
        return ()
    return tuple(
        replace(stage, keep=None) if place in places else stage
        for place, stage in enumerate(stages)
    )


def subject(stages: Sequence[Stage]) -> str:
    """Identify the stages as they run: names, weights, tokenizers and limits."""
    return hashlib.sha256(json.dumps([_identity(one) for one in stages]).encode()).hexdigest()


def _identity(stage: Stage) -> list[str]:
    scorer, files = stage.scorer, model_files(stage)
    if files is None:
        return [scorer.name, stage.when, repr(stage.keep)]
    limit = scorer.max_tokens if isinstance(scorer, OnnxScorer) else 0
    if isinstance(scorer, ExitScorer):
        limit = scorer.trunk.max_tokens
    return [
        sha256(files.graph) + (" int8" if files.int8 else ""),
        sha256(files.tokenizer),
        str(limit),
        stage.when,
        repr(stage.keep),
    ]
