"""Train trunk and heads together: listwise distillation from teacher and labels, the last head into the earlier ones."""

from __future__ import annotations

import copy
import json
import os
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors.torch import load_file
from torch import distributed, nn
from tqdm import tqdm

from . import losses
from .copies import Fixed, HalfStep
from .encoder import trunk_state, v0_state
from .model import CrossEncoder
from .pairs import Batch, Mined, batches

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor


@dataclass(frozen=True, slots=True)
class Recipe:
    """What a run is made of; the run's folder keeps it as recipe.json.

    With `blended`, the checkpoint of a run that ended, this run begins `share` of the way from that
    run's start to its end, and every exit learns to rank as the last layer of that blend does.
    """

    head: str = "rows"
    start: str = ""
    seed: int = 0
    steps: int = 5_600
    groups: int = 8
    size: int = 8
    rate_trunk: float = 5e-5
    rate_head: float = 5e-4
    rate_scalar: float = 2e-2
    rate_gate: float = 3e-2
    gate_query: float = -5.0
    gate_passage: float = -3.0
    decay_from: int | None = 5_000
    warm_up: int = 20
    temperature: float = 0.5
    exit_weights: tuple[float, float, float] = (0.5, 0.5, 1.0)
    self_distillation: float = 0.5
    pointwise: float = 0.1
    average: float = 0.99
    blended: str = ""
    share: float = 0.5
    differences: float = 0.3
    rounds: int = 1


# With `blended`: the trunk bends only as far as the exits need, and the last layer is held in place.
FOLLOW = {
    "steps": 1_600,
    "rounds": 2,
    "decay_from": 400,
    "rate_trunk": 3e-5,
    "rate_gate": 3e-3,
}


class Student(nn.Module):
    """The model in fp32, with a scale and shift that make its score a logit for the pointwise loss."""

    def __init__(self, recipe: Recipe, bridges: Path | None = None) -> None:
        """Start from embedded-v0's weights in the file `recipe.start`, or else from the encoder.

        `bridges` names the file of the maps that lead from exits 2 and 4 to the last layer.
        """
        super().__init__()
        self.model = CrossEncoder(recipe.head)
        state = v0_state(Path(recipe.start)) if recipe.start else trunk_state()
        if recipe.head != "rows":
            state = {name: weight for name, weight in state.items() if not name.startswith("heads")}
        if bridges is not None:
            state |= load_file(str(bridges))
        self.model.load_state_dict(state, strict=False)
        with torch.no_grad():
            for layer in self.model.layers:
                layer.gate[:, 0, 1] = recipe.gate_query  # type: ignore[index]
                layer.gate[:, 1, 0] = recipe.gate_passage  # type: ignore[index]
        if recipe.blended:
            _blend_with(self.model, Path(recipe.blended), recipe.share)
        self.scale = nn.Parameter(torch.tensor(1.0))
        self.shift = nn.Parameter(torch.tensor(-12.0))


@torch.no_grad()
def _blend_with(model: CrossEncoder, checkpoint: Path, share: float) -> None:
    """Move all weights towards a checkpoint's.

    What fine-tuning forgets and what it learns lie on one line in weight space (WiSE-FT, Wortsman
    et al., CVPR 2022): a point between the two ranks foreign text better than either end.
    """
    end = torch.load(checkpoint, map_location="cpu", weights_only=True)["average"]
    for name, ours in model.state_dict().items():
        if ours.is_floating_point():
            ours.lerp_(end[name], share)


def _rate(step: int, recipe: Recipe) -> float:
    """Return the share of the peak rate: warm up, hold, fall to zero from `decay_from` to the last step.

    All of it happens once in every round.

    >>> [_rate(step, Recipe(steps=100, decay_from=60, warm_up=10)) for step in (0, 59, 80, 99)]
    [0.1, 1.0, 0.5, 0.025]
    """
    steps = recipe.steps // recipe.rounds
    place = step % steps
    start = steps * 3 // 5 if recipe.decay_from is None else recipe.decay_from
    left = (steps - place) / max(1, steps - start)
    return max(0.0, min(1.0, (place + 1) / recipe.warm_up, left))


def _optimiser(student: Student, recipe: Recipe) -> torch.optim.AdamW:
    scalars = {id(student.scale), id(student.shift)}
    for head in student.model.heads:
        scalars |= {id(p) for p in head.parameters() if p.ndim == 0}
    small = nn.ModuleList([student.model.heads, student.model.bridges])
    heads = [p for p in small.parameters() if id(p) not in scalars]
    for table in (student.model.embeddings.word, student.model.embeddings.position):
        table.requires_grad_(False)
    gates = [layer.gate for layer in student.model.layers]
    scalars |= {id(gate) for gate in gates}
    trunk = [
        p
        for n, p in student.model.named_parameters()
        if p.requires_grad and not n.startswith(("heads", "bridges")) and id(p) not in scalars
    ]
    groups = [
        {"params": trunk, "lr": recipe.rate_trunk},
        {"params": gates, "lr": recipe.rate_gate, "weight_decay": 0.0},
        {"params": heads, "lr": recipe.rate_head},
        {
            "params": [p for p in student.parameters() if p.ndim == 0],
            "lr": recipe.rate_scalar,
            "weight_decay": 0.0,
        },
    ]
    for group in groups:
        group["peak"] = group["lr"]
    return torch.optim.AdamW(groups, betas=(0.9, 0.98), weight_decay=0.01)


def _loss(batch: Batch, half: HalfStep, blend: Fixed | None, recipe: Recipe, device: str) -> Tensor:
    inputs = tuple(part.to(device) for part in batch.inputs)
    teacher = batch.teacher.to(device).float()
    scores = half.scores(inputs).reshape(*teacher.shape, -1)  # type: ignore[arg-type]
    if blend is None:
        return losses.of(scores, teacher, half.student, recipe)
    return losses.following(scores, blend(inputs).view_as(teacher), recipe.differences)


def _share(student: Student, world: int) -> None:
    """Average the gradients of all workers, in one message."""
    parts = [p.grad for p in student.parameters() if p.grad is not None]
    flat = torch.cat([part.reshape(-1) for part in parts])
    distributed.all_reduce(flat)
    for part, mean in zip(
        parts, flat.div_(world).split([part.numel() for part in parts]), strict=True
    ):
        part.copy_(mean.view_as(part))


def workers() -> tuple[int, int]:
    """Return (rank, world) under torchrun, else (0, 1)."""
    if "RANK" not in os.environ:
        return 0, 1
    if not distributed.is_initialized():
        distributed.init_process_group("gloo")
    return distributed.get_rank(), distributed.get_world_size()


def run(
    data: Mined,
    recipe: Recipe,
    folder: Path,
    *,
    device: str = "cpu",
    bridges: Path | None = None,
    evaluate: Callable[[CrossEncoder, int], dict[str, float]] | None = None,
    evaluate_every: int = 1_000,
    save_every: int = 100,
    stop_at: int | None = None,
) -> CrossEncoder:
    """Train (or go on from the folder's checkpoint) and return the averaged model."""
    rank, world = workers()
    torch.manual_seed(recipe.seed)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "recipe.json").write_text(json.dumps(asdict(recipe), indent=1))
    student = Student(recipe, bridges).to(device)
    optimiser = _optimiser(student, recipe)
    half = HalfStep(student)
    blend = Fixed(half.copy) if recipe.blended else None
    average = copy.deepcopy(student.model)
    step = _resume(folder / "last.pt", student, average, optimiser)
    stream = batches(data, groups=recipe.groups, size=recipe.size, seed=recipe.seed, start=step)
    bar = tqdm(
        total=recipe.steps,
        initial=step,
        desc=folder.name,
        unit="step",
        mininterval=15,
        disable=rank > 0,
    )
    started, recent, pairs = time.time(), 0.0, 0
    while step < (recipe.steps if stop_at is None else stop_at):
        batch = next(stream).part(rank, world)
        for group in optimiser.param_groups:
            group["lr"] = group["peak"] * _rate(step, recipe)
        loss = _loss(batch, half, blend, recipe, device)
        loss.backward()
        half.collect()
        if world > 1:
            _share(student, world)
        nn.utils.clip_grad_norm_(student.parameters(), 1.0)
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        step += 1
        if rank > 0:
            continue
        _blend(average, student.model, min(recipe.average, step / (step + 10)))
        recent = 0.98 * recent + 0.02 * float(loss.detach()) if recent else float(loss.detach())
        pairs += batch.teacher.numel() * world
        bar.update()
        if step % 50 == 0:
            speed = pairs / (time.time() - started)
            bar.set_postfix(loss=f"{recent:.3f}", pairs_s=f"{speed:.0f}")
            _note(folder, {"step": step, "loss": recent, "pairs_per_s": speed})
        if step % save_every == 0 or step == recipe.steps:
            _save(folder / "last.pt", step, student, average, optimiser)
        if evaluate and (step % evaluate_every == 0 or step == recipe.steps):
            _note(folder, {"step": step, **evaluate(average, step)})
    bar.close()
    return average


@torch.no_grad()
def _blend(average: nn.Module, current: nn.Module, keep: float) -> None:
    theirs = [p for p in current.parameters() if p.requires_grad]
    ours = [
        a
        for a, p in zip(average.parameters(), current.parameters(), strict=True)
        if p.requires_grad
    ]
    torch._foreach_lerp_(ours, theirs, 1 - keep)


def _note(folder: Path, row: dict[str, float]) -> None:
    with (folder / "log.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")


def _save(
    path: Path, step: int, student: Student, average: nn.Module, optimiser: torch.optim.Optimizer
) -> None:
    state = {
        "step": step,
        "student": student.state_dict(),
        "average": average.state_dict(),
        "optimiser": optimiser.state_dict(),
    }
    torch.save(state, path.with_suffix(".new"))
    path.with_suffix(".new").replace(path)


def _resume(
    path: Path, student: Student, average: nn.Module, optimiser: torch.optim.Optimizer
) -> int:
    if not path.exists():
        return 0
    state = torch.load(path, map_location="cpu", weights_only=True)
    student.load_state_dict(state["student"])
    average.load_state_dict(state["average"])
    peaks = [group["peak"] for group in optimiser.param_groups]
    optimiser.load_state_dict(state["optimiser"])
    for group, peak in zip(optimiser.param_groups, peaks, strict=True):
        group["peak"] = peak
    return int(state["step"])
