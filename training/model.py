"""The cross-encoder: six BERT layers with a head after layers 2, 4 and 6."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn import functional as F

if TYPE_CHECKING:
    from torch import Tensor

HIDDEN, HEADS, WIDE, LAYERS, EXITS = 384, 12, 1536, 6, (2, 4, 6)
VOCABULARY, MAX_TOKENS = 30522, 512
CLS, SEP, PAD = 101, 102, 0


class Embeddings(nn.Module):
    """Word, position and segment embeddings with their norm."""

    def __init__(self) -> None:
        super().__init__()
        self.word = nn.Embedding(VOCABULARY, HIDDEN)
        self.position = nn.Embedding(MAX_TOKENS, HIDDEN)
        self.segment = nn.Embedding(2, HIDDEN)
        self.norm = nn.LayerNorm(HIDDEN, eps=1e-12)

    def forward(self, input_ids: Tensor, token_type_ids: Tensor) -> Tensor:
        """Two int64 inputs [batch, length] -> hidden state [batch, length, hidden]."""
        place = torch.arange(input_ids.shape[1], device=input_ids.device)[None]
        summed = self.word(input_ids) + self.segment(token_type_ids) + self.position(place)
        return self.norm(summed)


class Layer(nn.Module):
    """One post-norm BERT layer, in the shape that ONNX Runtime's fusions know."""

    def __init__(self) -> None:
        super().__init__()
        self.query, self.key, self.value = (nn.Linear(HIDDEN, HIDDEN) for _ in range(3))
        self.attended = nn.Linear(HIDDEN, HIDDEN)
        self.wide, self.narrow = nn.Linear(HIDDEN, WIDE), nn.Linear(WIDE, HIDDEN)
        self.norm_1, self.norm_2 = (nn.LayerNorm(HIDDEN, eps=1e-12) for _ in range(2))

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        """X [batch, length, hidden], bias [batch, 1, 1, length] (0 or -1e4) -> the shape of x."""
        b, n, _ = x.shape
        q, k, v = (
            part(x).reshape(b, n, HEADS, HIDDEN // HEADS).transpose(1, 2)
            for part in (self.query, self.key, self.value)
        )
        if torch.onnx.is_in_onnx_export():
            weights = torch.softmax(q @ k.transpose(-1, -2) / math.sqrt(HIDDEN // HEADS) + bias, -1)
            mixed = weights @ v
        elif torch.is_grad_enabled():
            # On CPUs the fused attention's backward pass takes a third of a step; this passes over
            # the length x length products as rarely as plain operations can.
            flat = (b * HEADS, n, HIDDEN // HEADS)
            spread = bias.expand(b, HEADS, 1, n).reshape(b * HEADS, 1, n)
            products = torch.baddbmm(
                spread,
                q.reshape(flat),
                k.reshape(flat).transpose(1, 2),
                alpha=(HIDDEN // HEADS) ** -0.5,
            )
            mixed = torch.bmm(torch.softmax(products, -1), v.reshape(flat)).view(b, HEADS, n, -1)
        else:
            mixed = F.scaled_dot_product_attention(q, k, v, bias)
        mixed = mixed.transpose(1, 2).reshape(b, n, HIDDEN)
        x = self.norm_1(x + self.attended(mixed))
        return self.norm_2(x + self.narrow(F.gelu(self.wide(x))))


class ClsHead(nn.Module):
    """score = w . tanh(W [CLS]): the engine may then compute one row of the layer below."""

    def __init__(self) -> None:
        super().__init__()
        self.dense, self.score = nn.Linear(HIDDEN, HIDDEN), nn.Linear(HIDDEN, 1)

        nn.init.zeros_(self.score.weight)
        nn.init.zeros_(self.score.bias)

    def forward(self, h: Tensor, masks: tuple[Tensor, ...]) -> Tensor:  # noqa: ARG002 one seam
        """H [batch, length, hidden] -> scores [batch]."""
        return self.score(torch.tanh(self.dense(h[:, 0])))[..., 0]


class RowsHead(nn.Module):
    """score = a * cos(mean query row, mean passage row) + b * weighted MaxSim + w . tanh(W [CLS]).

    Starts as a late-interaction ranking of the encoder's rows instead of noise.
    """

    def __init__(self) -> None:
        super().__init__()
        self.dense, self.score = nn.Linear(HIDDEN, HIDDEN), nn.Linear(HIDDEN, 1)
        self.weight = nn.Linear(HIDDEN, 1)
        self.a, self.b = nn.Parameter(torch.tensor(10.0)), nn.Parameter(torch.tensor(10.0))
        for part in (self.score, self.weight):
            nn.init.zeros_(part.weight)
            nn.init.zeros_(part.bias)

    def forward(self, h: Tensor, masks: tuple[Tensor, ...]) -> Tensor:
        """H [batch, length, hidden], four masks [batch, length] -> scores [batch]."""
        query, passage, query_words, passage_words = masks
        mean_q = F.normalize((h * query[..., None]).sum(1) / query.sum(1, keepdim=True), dim=-1)
        sum_p = (h * passage[..., None]).sum(1)
        mean_p = F.normalize(sum_p / passage.sum(1, keepdim=True).clamp(min=1), dim=-1)
        unit = F.normalize(h, dim=-1)
        best = (unit @ unit.transpose(1, 2) + (passage_words[:, None, :] - 1) * 4).amax(-1)
        share = torch.softmax(self.weight(h)[..., 0] + (query_words - 1) * 1e4, -1)
        cls = self.score(torch.tanh(self.dense(h[:, 0])))[..., 0]
        return self.a * (mean_q * mean_p).sum(-1) + self.b * (best * share).sum(-1) + cls


HEADS_BY_NAME = {
    "cls": (ClsHead, ClsHead, ClsHead),
    "rows": (RowsHead, RowsHead, RowsHead),
    # Exits 2 and 4 have every row at hand; only the last layer saves by computing [CLS] alone.
    "mixed": (RowsHead, RowsHead, ClsHead),
}


class CrossEncoder(nn.Module):
    """Trunk and heads; every exit's score of one pair comes from one pass."""

    def __init__(self, head: str = "rows") -> None:
        super().__init__()
        self.embeddings = Embeddings()
        self.layers = nn.ModuleList(Layer() for _ in range(LAYERS))
        self.heads = nn.ModuleList(kind() for kind in HEADS_BY_NAME[head])
        self.residual = head == "mixed"

    def forward(self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor) -> Tensor:
        """Three int64 inputs [batch, length] -> scores [batch, 3]; the last column is the model's."""
        x = self.embeddings(input_ids, token_type_ids)
        masks = head_masks(input_ids, attention_mask, token_type_ids)
        bias = ((1 - attention_mask.to(x.dtype)) * -1e4)[:, None, None, :]
        scores = []
        for i, layer in enumerate(self.layers, start=1):
            x = layer(x, bias)
            if i in EXITS:
                # Heads stay in fp32: they are small, and scores near each other decide the order.
                scores.append(self.heads[EXITS.index(i)](x.float(), masks))
        if self.residual:
            # The last score is a [CLS] correction of exit 4, so training starts at a ranking, not at noise.
            scores[-1] = scores[-1] + scores[-2]
        return torch.stack(scores, -1)


def head_masks(
    input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor
) -> tuple[Tensor, ...]:
    """Return float masks [batch, length]: query, passage, and both without special tokens."""
    on, second = attention_mask.float(), token_type_ids.float()
    words = ((input_ids != CLS) & (input_ids != SEP)).float()
    query, passage = on * (1 - second), on * second
    return query, passage, query * words, passage * words
