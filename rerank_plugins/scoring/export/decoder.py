"""Export a decoder checkpoint as a graph that returns the logits of the prompt's two answers."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ...errors import ModelError
from ..models.registry import KNOWN, PROMPTS
from ..text.tokenizer import PairArrays, PairTokenizer

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def template_of(source: str, template: str | None) -> str:
    """Return the prompt of a decoder: the caller's, else the known model's; or `ModelError`."""
    known = KNOWN.get(source)
    name = template or (known.template if known is not None else None)
    if name is None or name not in PROMPTS:
        found = "nothing says how to ask it" if name is None else f"template {name!r} is unknown"
        message = (
            f"{source!r} is a decoder, and {found}; give the template it was trained with, one of "
            f"{', '.join(PROMPTS)}"
        )
        raise ModelError(message)
    return name


def write_card(folder: Path, source: str, template: str) -> None:
    """Write card.json: the prompt's name, and the limits of a known model."""
    card: dict[str, object] = {"prompt": template}
    known = KNOWN.get(source)
    if known is not None:
        card |= {"max_tokens": known.max_tokens, "licence": known.licence}
    (folder / "card.json").write_text(json.dumps(card, indent=1) + "\n", encoding="utf-8")


def write_graph(model: "PreTrainedModel", tokenizer: PairTokenizer, path: Path) -> None:
    """Write a graph [pairs, length] -> [pairs, 2], for the last token and the two answers alone.

    Logits of the whole vocabulary for every token would take gigabytes.
    """
    import torch

    vocabulary: torch.Tensor = model.get_output_embeddings().weight  # type: ignore[no-untyped-call]
    answers = list(tokenizer.answers())

    class Answers(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model.base_model
            # A bias makes it a Gemm, which int8 kernels do not replace: heads stay fp32.
            self.head = torch.nn.Linear(vocabulary.shape[1], len(answers))
            self.head.weight.data = vocabulary[answers].detach().clone()
            self.head.bias.data.zero_()

        def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
            hidden = self.model(
                input_ids=input_ids, attention_mask=attention_mask, use_cache=False
            ).last_hidden_state
            last = attention_mask.sum(1) - 1
            scores: torch.Tensor = self.head(hidden[torch.arange(hidden.shape[0]), last])
            return scores

    ids = torch.full((2, 16), 7, dtype=torch.long)
    mask = torch.ones_like(ids)
    mask[1, 12:] = 0
    axes = {0: torch.export.Dim.DYNAMIC, 1: torch.export.Dim.DYNAMIC}
    torch.onnx.export(
        Answers().eval(),
        (ids, mask),
        str(path),
        input_names=["input_ids", "attention_mask"],
        output_names=["logits"],
        dynamo=True,
        dynamic_shapes=(axes, axes),
        external_data=True,
    )


def torch_logits(
    model: "PreTrainedModel", answers: tuple[int, int], batches: Sequence[PairArrays]
) -> list[NDArray[np.float32]]:
    """Score batches with the checkpoint, padded at the front as the publisher's code does."""
    import torch

    found: list[NDArray[np.float32]] = []
    with torch.no_grad():
        for batch in batches:
            ids, mask = (np.zeros_like(batch.input_ids) for _ in range(2))
            for row, length in enumerate(batch.attention_mask.sum(axis=1).tolist()):
                ids[row, -length:] = batch.input_ids[row, :length]
                mask[row, -length:] = 1
            logits = model(
                input_ids=torch.from_numpy(ids), attention_mask=torch.from_numpy(mask)
            ).logits
            found.append(logits[:, -1, list(answers)].numpy())
    return found
