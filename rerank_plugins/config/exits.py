"""Make stages of a model's exits: of its own heads, or of heads calibrated in a folder."""

from dataclasses import dataclass, field, replace
from pathlib import Path

from ..adaptive.exit_audit import Adjust, ExitAudit, ExitLoss
from ..core.stage import Stage
from ..errors import ConfigError
from ..rules.calibration import Calibration
from ..rules.keep import Keep, MarginKeep, ProbabilityKeep
from ..rules.risk_control import Method
from ..rules.selection import MassDepth
from ..scoring.exits import calibration_file, heads
from ..scoring.exits.calibration_file import Exits
from ..scoring.exits.scorer import exit_scorers
from ..scoring.exits.segmented_model import SegmentedModel
from ..scoring.models.files import ModelFiles
from ..scoring.onnx.options import OnnxOptions


@dataclass(frozen=True, slots=True)
class Risk:
    """The loss that exits may cause, `alpha`; "ucb" and "ltt" hold it with chance 1 - delta."""

    alpha: float = 0.01
    method: Method = "ucb"
    delta: float = 0.1


@dataclass(frozen=True, slots=True)
class ModelStages:
    """The stages of a model, from first exit to last layer, and their calibration if any."""

    stages: tuple[Stage, ...]
    exits: Exits | None = None
    risk: Risk = field(default_factory=Risk)

    def depth(self, alpha: float, *, at_least: int = 1) -> MassDepth:
        """Return the smallest depth certified for a loss of `alpha`. Raises `ConfigError`."""
        if self.exits is None:
            message = (
                "depth = { risk = ... } needs exits = DIR at the first stage, a folder of "
                "calibrated exits; make it with: rerank-plugins calibrate --out DIR"
            )
            raise ConfigError(message)
        mass, _ = self.exits.choose_mass(alpha, method=self.risk.method, delta=self.risk.delta)
        return MassDepth(mass, min=max(at_least, self.exits.top_k))

    def audit(self, share: float, adjust: Adjust) -> ExitAudit:
        """Return how to audit these exits. Raises `ConfigError` where they promise nothing."""
        found = self.exits
        if found is None:
            message = (
                "exit_audit needs exits = DIR, a folder of calibrated exits, whose promise it "
                "checks; make it with: rerank-plugins calibrate --out DIR"
            )
            raise ConfigError(message)
        loss: ExitLoss = "top-k miss" if found.loss == "top-k miss" else "regret"
        return ExitAudit(share, self.risk.alpha, found.top_k, loss, found.probability, adjust)


def own_exits(
    files: ModelFiles,
    options: OnnxOptions,
    layers: tuple[int, ...],
    keep: Keep | None,
    calibration: Calibration | None = None,
) -> ModelStages:
    """Return stages that stop at the model's own heads, with `keep` after each.

    Raises `ModelError`, `ConfigError`.
    """
    if isinstance(keep, ProbabilityKeep) and calibration is None:
        message = f"exit_keep reads probabilities, and {files.name!r} is not calibrated"
        raise ConfigError(message)
    scorers = exit_scorers(SegmentedModel(files, heads.from_card(files.card, layers), options))
    exits = tuple(Stage(scorer, keep, calibration=calibration) for scorer in scorers[:-1])
    return ModelStages((*exits, Stage(scorers[-1], calibration=calibration)))


def calibrated_exits(
    files: ModelFiles,
    options: OnnxOptions,
    folder: Path,
    risk: Risk,
    *,
    prior_weight: float = 0.0,
    calibration: Calibration | None = None,
) -> ModelStages:
    """Return stages that stop at calibrated exits, with the margins that hold `risk`.

    Raises `ModelError` where the exits were calibrated on another model, and `ConfigError` where
    they cannot hold the risk.
    """
    found = calibration_file.load(folder)
    model = SegmentedModel(files, found.heads, options)
    calibration_file.require(
        found, calibration_file.subject(files, model.max_tokens, prior_weight), folder
    )
    limits, choice = found.choose(risk.alpha, method=risk.method, delta=risk.delta)
    sure = "" if choice.delta is None else f" with {1.0 - choice.delta:.0%} confidence"
    promise = f"{found.loss} <= {risk.alpha:g}{sure}"
    scorers = exit_scorers(model)
    exits = tuple(
        Stage(
            scorer,
            MarginKeep(margin, found.top_k, min=found.top_k, promise=promise),
            calibration=calibration,
        )
        for scorer, margin in zip(scorers, limits.margins, strict=False)
    )
    first = replace(exits[0], enter=limits.depth)
    last = Stage(scorers[-1], calibration=calibration)
    return ModelStages((first, *exits[1:], last), found, risk)


def model_files(stage: Stage) -> ModelFiles | None:
    """Return the files of the model that a stage runs here, None if it runs none."""
    files = getattr(stage.scorer, "files", None)
    return files if isinstance(files, ModelFiles) else None
