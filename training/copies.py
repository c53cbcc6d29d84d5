"""Copies of the model that train.py computes with: in half precision, and as it was at the start."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Tensor

    from .model import CrossEncoder
    from .train import Student


class HalfStep:
    """Runs the layers in bf16 on a copy of the fp32 weights and brings the gradients back.

    Autocast converts every weight and activation again and again; a copy is 1.5 times as fast on CPUs.
    """

    def __init__(self, student: Student) -> None:
        self.student = student
        self.copy = copy.deepcopy(student.model)
        self.copy.embeddings.to(torch.bfloat16)
        self.copy.layers.to(torch.bfloat16)
        self.copy.bridges.to(torch.bfloat16)
        self.pairs = [
            (ours, theirs)
            for ours, theirs in zip(student.model.parameters(), self.copy.parameters(), strict=True)
            if ours.requires_grad
        ]

    def scores(self, inputs: tuple[Tensor, Tensor, Tensor]) -> Tensor:
        """Return scores [pairs, exits] of the current weights."""
        with torch.no_grad():
            for ours, theirs in self.pairs:
                theirs.copy_(ours)
        return self.copy(*inputs)

    def collect(self) -> None:
        """Move the gradients to the fp32 weights."""
        for ours, theirs in self.pairs:
            ours.grad = None if theirs.grad is None else theirs.grad.float()
            theirs.grad = None


class Fixed:
    """A copy of the model at the start of a run, whose last layer stays the measure."""

    def __init__(self, model: CrossEncoder) -> None:
        self.model = copy.deepcopy(model).requires_grad_(False)

    @torch.no_grad()
    def __call__(self, inputs: tuple[Tensor, ...]) -> Tensor:
        """Return the last layer's scores [pairs]."""
        return self.model(*inputs)[:, -1]
