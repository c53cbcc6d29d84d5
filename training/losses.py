"""What training minimises: listwise distillation from teacher and labels, and of the last exit into the others."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch.nn import functional as F

from .model import EXITS

if TYPE_CHECKING:
    from torch import Tensor

    from .train import Recipe, Student


def of(scores: Tensor, teacher: Tensor, student: Student, recipe: Recipe) -> Tensor:
    """Scores [groups, size, exits], teacher [groups, size] -> scalar loss."""
    target = torch.softmax(teacher / recipe.temperature, -1)
    logs = torch.log_softmax(scores, 1)
    total = scores.new_zeros(())
    last = torch.softmax(scores[..., -1].detach(), -1)
    for i, weight in enumerate(recipe.exit_weights):
        total = total + weight * F.kl_div(logs[..., i], target, reduction="batchmean")
        if i < len(EXITS) - 1:
            total = total + recipe.self_distillation * F.kl_div(
                logs[..., i], last, reduction="batchmean"
            )
    logits = scores[..., -1] * student.scale + student.shift
    relevant = torch.zeros_like(logits)
    relevant[:, 0] = 1
    return total + recipe.pointwise * F.binary_cross_entropy_with_logits(logits, relevant)


def following(scores: Tensor, measure: Tensor, differences: float) -> Tensor:
    """Scores [groups, size, exits], the fixed model's scores [groups, size] -> scalar loss.

    Softmax alone forgets the order among the lower places; the squared differences within a group
    (margin-MSE, Hofstaetter et al. 2020) keep it, with the weight `differences`.
    """
    logs = torch.log_softmax(scores, 1)
    target = torch.softmax(measure, -1)
    apart = (scores - scores.mean(1, keepdim=True)) - (measure - measure.mean(1, keepdim=True))[
        ..., None
    ]
    total = differences * (apart**2).mean((0, 1)).sum()
    for i in range(len(EXITS)):
        total = total + F.kl_div(logs[..., i], target, reduction="batchmean")
    return total
