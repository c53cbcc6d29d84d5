"""One model as a cascade of its own exits: stages from a card's heads or from calibrated ones."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from ..adaptive.exit_audit import Adjust, ExitAudit, Loss
from ..core.stage import Stage
from ..errors import ConfigError
from ..rules.calibration import Calibration
from ..rules.keep import READS_PROBABILITIES, Keep, MarginKeep
from ..rules.risk_control import Method
from ..rules.selection import MassDepth
from ..scoring.exits import calibration_file, heads
from ..scoring.exits.calibration_file import Exits
from ..scoring.exits.scorer import ExitScorer, stages_of
from ..scoring.exits.segmented_model import Trunk
from ..scoring.models.files import ModelFiles
from ..scoring.onnx.options import OnnxOptions


@dataclass(frozen=True, slots=True)
class Risk:
    """What loss exits may cause: "ucb" and "ltt" hold it in 1 - delta of calibrations."""

    alpha: float = 0.01
    method: Method = "ucb"
    delta: float = 0.1


@dataclass(frozen=True, slots=True)
class Exiting:
    """The stages of one model, first exit to last layer, and what was calibrated with them."""

    stages: tuple[Stage, ...]
    exits: Exits | None = None
    risk: Risk = field(default_factory=Risk)

    @property
    def plans(self) -> Mapping[tuple[int, ...], float]:
        """Give plans with their measured quality."""
        return {} if self.exits is None else self.exits.plans

    @property
    def short_plans(self) -> Mapping[int, Mapping[tuple[int, ...], float]]:
        """Give the plans that cut pairs, by the length they are cut to."""
        return {} if self.exits is None else self.exits.short_plans

    @property
    def nulls(self) -> tuple[float, ...]:
        """Give the scores of random pairs."""
        return () if self.exits is None else self.exits.nulls

    def depth(self, alpha: float, *, least: int = 1) -> MassDepth:
        """Give the shallowest depth certified for a loss of `alpha`. Raises `ConfigError`."""
        if self.exits is None:
            message = (
                "depth = { risk = ... } needs exits = DIR at the first stage, a folder of "
                "calibrated exits; make it with: rerank-plugins calibrate --out DIR"
            )
            raise ConfigError(message)
        mass, _ = self.exits.choose_mass(alpha, method=self.risk.method, delta=self.risk.delta)
        return MassDepth(mass, min=max(least, self.exits.top_k))

    def audit(self, share: float, adjust: Adjust) -> ExitAudit:
        """Say how to audit these exits. Raises `ConfigError` where they promise nothing."""
        found = self.exits
        if found is None:
            message = (
                "exit_audit needs exits = DIR, a folder of calibrated exits, whose promise it "
                "checks; make it with: rerank-plugins calibrate --out DIR"
            )
            raise ConfigError(message)
        loss: Loss = "top-k miss" if found.loss == "top-k miss" else "regret"
        return ExitAudit(share, self.risk.alpha, found.top_k, loss, found.probability, adjust)


def own_exits(
    files: ModelFiles,
    options: OnnxOptions,
    layers: tuple[int, ...],
    keep: Keep | None,
    calibration: Calibration | None = None,
) -> Exiting:
    """Stop at heads of the model's own, `keep` behind each. Raises `ModelError`, `ConfigError`."""
    if isinstance(keep, READS_PROBABILITIES) and calibration is None:
        message = f"exit_keep reads probabilities, and {files.name!r} is not calibrated"
        raise ConfigError(message)
    scorers = stages_of(Trunk(files, heads.from_card(files.card, layers), options))
    exits = tuple(Stage(one, keep, calibration=calibration) for one in scorers[:-1])
    return Exiting((*exits, Stage(scorers[-1], calibration=calibration)))


def calibrated_exits(
    files: ModelFiles,
    options: OnnxOptions,
    folder: Path,
    risk: Risk,
    *,
    prior_weight: float = 0.0,
    calibration: Calibration | None = None,
) -> Exiting:
    """Stop at calibrated exits, with the margins that hold `risk`.

    Raises `ModelError` where they were calibrated on something else, `ConfigError` where they
    cannot promise as much.
    """
    found = calibration_file.load(folder)
    trunk = Trunk(files, found.heads, options)
    calibration_file.require(
        found, calibration_file.subject(files, trunk.max_tokens, prior_weight), folder
    )
    limits, choice = found.choose(risk.alpha, method=risk.method, delta=risk.delta)
    sure = "" if choice.delta is None else f" with {1.0 - choice.delta:.0%} confidence"
    promise = f"{found.loss} <= {risk.alpha:g}{sure}"
    scorers = stages_of(trunk)
    exits = tuple(
        Stage(
            one,
            MarginKeep(margin, found.top_k, min=found.top_k, promise=promise),
            calibration=calibration,
        )
        for one, margin in zip(scorers, limits.margins, strict=False)
    )
    first = replace(exits[0], enter=limits.depth)
    last = Stage(scorers[-1], calibration=calibration)
    return Exiting((first, *exits[1:], last), found, risk)


def model_files(stage: Stage) -> ModelFiles | None:
    """Give the files of the model that a stage runs, if it runs one here."""
    scorer = stage.scorer
    files = scorer.files if isinstance(scorer, ExitScorer) else getattr(scorer, "files", None)
    return files if isinstance(files, ModelFiles) else None
