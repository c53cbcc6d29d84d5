"""Calibrated exits on disk: heads, margins, and the losses that a promise is computed from."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, astuple, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import ConfigError, ModelError
from ...rules import risk_control
from ...rules.calibration import Calibration
from ...rules.risk_control import Choice, Method
from ..models.files import ModelFiles
from .heads import Head, Probe

FORMAT = 3
_FACTS, _ARRAYS = "exits.json", "exits.npz"


@dataclass(frozen=True, slots=True)
class Subject:
    """What was calibrated: with another model, tokenizer or limit the promise does not hold."""

    graph_sha256: str
    tokenizer_sha256: str
    max_tokens: int
    prior_weight: float = 0.0


@dataclass(frozen=True, slots=True)
class Limits:
    """How far candidates go.

    margins: the margin behind each exit, in scores
    depth: how many of the first stage's best candidates enter; None: all
    """

    margins: tuple[float, ...]
    depth: int | None = None


@dataclass(frozen=True, slots=True)
class LimitScale:
    """How one number, the level, becomes limits: the lower the level, the more is left out.

    scales: the margin behind exit i is level * scales[i]
    depth_scale: top_k + level * depth_scale candidates enter; None: all
    """

    scales: tuple[float, ...]
    depth_scale: float | None = None

    def at(self, level: float, top_k: int) -> Limits:
        """Return the limits of a level.

        >>> LimitScale((1.0, 0.5), 40.0).at(2.0, 10)
        Limits(margins=(2.0, 1.0), depth=90)
        """
        margins = tuple(level * scale for scale in self.scales)
        if self.depth_scale is None:
            return Limits(margins)
        return Limits(margins, top_k + round(level * self.depth_scale))


@dataclass(frozen=True, slots=True)
class Exits:
    """Exit heads, and limits for any promise.

    levels: from careful to bold, see `LimitScale`
    losses: [queries, levels] for the best `top_k`, on queries that chose neither heads nor scale
    loss: the name of what is lost
    plans: quality by the number of candidates per stage
    masses: shares of the softmax of the priors, from careful to bold
    mass_losses: [queries, masses] lost if only the candidates with that share are scored in full
    probability: turned scores into the gains that a regret is measured in
    short_plans: `plans` for each length, in tokens, that pairs may be cut to
    """

    subject: Subject
    heads: tuple[Head, ...]
    scale: LimitScale
    levels: NDArray[np.float64]
    losses: NDArray[np.float64]
    top_k: int
    loss: str
    plans: Mapping[tuple[int, ...], float] = field(default_factory=dict)
    facts: Mapping[str, object] = field(default_factory=dict)
    masses: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))
    mass_losses: NDArray[np.float64] = field(default_factory=lambda: np.zeros((0, 0)))
    probability: Calibration = field(default_factory=lambda: Calibration(1.0, 0.0))
    short_plans: Mapping[int, Mapping[tuple[int, ...], float]] = field(default_factory=dict)

    def choose(
        self, alpha: float, *, method: Method = "ucb", delta: float = 0.1
    ) -> tuple[Limits, Choice]:
        """Return the limits that hold a loss of `alpha`, and the evidence.

        Raises `ConfigError` where no level does; it names the least that can be promised.
        """
        choice = risk_control.choose(self.losses, alpha, method=method, delta=delta)
        level = float(self.levels[self._index(choice, "margin")])
        return self.scale.at(level, self.top_k), choice

    def choose_mass(
        self, alpha: float, *, method: Method = "ucb", delta: float = 0.1
    ) -> tuple[float, Choice]:
        """Return the least mass of a depth that holds a loss of `alpha`. Raises `ConfigError`."""
        if not self.mass_losses.size:
            raise ConfigError("these exits hold no certified depth; calibrate again")
        choice = risk_control.choose(self.mass_losses, alpha, method=method, delta=delta)
        return float(self.masses[self._index(choice, "depth")]), choice

    def _index(self, choice: Choice, what: str) -> int:
        if choice.place is None:
            message = (
                f"no {what} holds a {self.loss} of {choice.alpha:g} ({choice.method}, "
                f"{choice.queries} queries): the least that can be promised is "
                f"{choice.bound:.4f}; allow that much, or calibrate on more queries"
            )
            raise ConfigError(message)
        return choice.place


def subject(files: ModelFiles, max_tokens: int, prior_weight: float = 0.0) -> Subject:
    """Identify a model as it is run."""
    hashes = files.graph_file.sha256(), files.tokenizer_sha256()
    return Subject(*hashes, max_tokens, prior_weight)


def save(exits: Exits, folder: Path) -> None:
    """Write calibrated exits as exits.json and exits.npz."""
    folder.mkdir(parents=True, exist_ok=True)
    arrays: dict[str, NDArray[np.generic]] = {
        "levels": exits.levels,
        "losses": exits.losses.astype(np.float32),
        "masses": exits.masses,
        "mass_losses": exits.mass_losses.astype(np.float32),
    }
    for place, head in enumerate(exits.heads):
        if head.probe is not None:
            arrays[f"weights_{place}"] = head.probe.weights
    text = {
        "format": FORMAT,
        "subject": asdict(exits.subject),
        "heads": [_head_facts(head) for head in exits.heads],
        **asdict(exits.scale),
        "top_k": exits.top_k,
        "loss": exits.loss,
        "probability": astuple(exits.probability),
        "plans": list(exits.plans.items()),
        "short_plans": [
            [tokens, list(plans.items())] for tokens, plans in exits.short_plans.items()
        ],
        "facts": dict(exits.facts),
    }
    (folder / _FACTS).write_text(json.dumps(text, indent=1) + "\n", encoding="utf-8")
    np.savez_compressed(folder / _ARRAYS, allow_pickle=False, **arrays)


def load(folder: Path) -> Exits:
    """Read calibrated exits. Raises `ModelError`; `require` checks which model they are for."""
    try:
        text = json.loads((folder / _FACTS).read_text(encoding="utf-8"))
        # numpy leaves a file open that it cannot read.
        with (folder / _ARRAYS).open("rb") as file, np.load(file, allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in stored.files}
        return _parse(text, arrays)
    except Exception as error:
        # Damaged archives raise what zlib and zipfile please, deep JSON a RecursionError.
        message = (
            f"{folder} holds no calibrated exits ({type(error).__name__}: {error}); make them "
            "with: rerank-plugins calibrate --out DIR"
        )
        raise ModelError(message) from error


def require(found: Exits, current: Subject, folder: Path) -> None:
    """Raise `ModelError` for exits of another subject than the current one."""
    if found.subject != current:
        old, new = asdict(found.subject), asdict(current)
        changed = ", ".join(
            f"{name} was {str(old[name])[:12]} and is {str(new[name])[:12]}"
            for name in old
            if old[name] != new[name]
        )
        message = (
            f"the exits in {folder} were calibrated on something else: {changed}. Their promise "
            "does not hold here; calibrate again"
        )
        raise ModelError(message)


def _head_facts(head: Head) -> dict[str, object]:
    """Return what exits.json holds of a head; the weights of its probe are in exits.npz."""
    facts = asdict(head)
    probe = facts.pop("probe") or {}
    return facts | {name: value for name, value in probe.items() if name != "weights"}


def _head(facts: Mapping[str, Any], weights: NDArray[np.generic] | None) -> Head:
    if weights is None:
        return Head(**facts)
    known = dict(facts)
    numbers = {name: float(known.pop(name)) for name in ("previous", "log_rank", "bias")}
    return Head(**known, probe=Probe(np.asarray(weights, dtype=np.float32), **numbers))


def _parse(text: Mapping[str, Any], arrays: Mapping[str, NDArray[np.generic]]) -> Exits:
    if text["format"] != FORMAT:
        raise ValueError(f"format {text['format']}, expected {FORMAT}")
    numbers = {
        name: np.asarray(arrays[name], dtype=np.float64)
        for name in ("levels", "losses", "masses", "mass_losses")
    }
    return Exits(
        subject=Subject(**text["subject"]),
        heads=tuple(
            _head(facts, arrays.get(f"weights_{place}"))
            for place, facts in enumerate(text["heads"])
        ),
        scale=LimitScale(tuple(text["scales"]), text["depth_scale"]),
        top_k=int(text["top_k"]),
        loss=str(text["loss"]),
        plans=_plans(text["plans"]),
        facts=text["facts"],
        probability=Calibration(*text["probability"]),
        short_plans={int(tokens): _plans(plans) for tokens, plans in text.get("short_plans", [])},
        **numbers,
    )


def _plans(listed: Iterable[tuple[Sequence[int], float]]) -> dict[tuple[int, ...], float]:
    return {tuple(counts): float(quality) for counts, quality in listed}
