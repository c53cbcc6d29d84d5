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
        # Each segment counts from 0, as if it stood alone: so the encoder knows it.
        place = torch.arange(input_ids.shape[1], device=input_ids.device)[None]
        before = (1 - token_type_ids).cumsum(1)
        place = place - token_type_ids * before
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
        # Per head, what a look from segment i to segment j adds to the attention score. Looks
        # across start nearly closed: then the encoder's own embeddings, side by side.
        self.gate = nn.Parameter(torch.zeros(HEADS, 2, 2))

    def bias(self, sides: Tensor, mask: Tensor) -> Tensor:
        """Segments [batch, length, 2] one-hot and mask [batch, 1, length] -> [batch, heads, length, length].

        One product of inner size 3: a row's own segment's gates, and 1 for the mask.
        """
        rows = sides[:, None] @ self.gate
        rows = torch.cat([rows, torch.ones_like(rows[..., :1])], -1)
        columns = torch.cat([sides.transpose(1, 2), mask], 1)
        return rows @ columns[:, None]

    def forward(self, x: Tensor, sides: Tensor, mask: Tensor) -> Tensor:
        """X [batch, length, hidden], one-hot segments, mask [batch, 1, length] (0 or -1e4) -> as x."""
        bias = self.bias(sides, mask)
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
            products = torch.baddbmm(
                bias.reshape(b * HEADS, n, n),
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
        """H [batch, length, hidden], four masks [batch, length] -> scores [batch].

        Of all rows only lengths and products with the few rows of queries are taken, which come
        first: every further pass over the rows costs as much as a hundredth of a layer.
        """
        query, passage, query_words, passage_words = masks
        sides = torch.stack([query, passage], 1)
        mean_q, mean_p = F.normalize(
            sides @ h / sides.sum(-1, keepdim=True).clamp(min=1), dim=-1
        ).unbind(1)
        first = query.sum(1).max().long()
        rows, words = h[:, :first], query_words[:, :first]
        lengths = h.norm(dim=-1).clamp(min=1e-12)
        alike = F.normalize(rows, dim=-1) @ h.transpose(1, 2) / lengths[:, None]
        best = (alike + (passage_words[:, None, :] - 1) * 4).amax(-1)
        share = torch.softmax(self.weight(rows)[..., 0] + (words - 1) * 1e4, -1)
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
        # Maps of the rows at exits 2 and 4 into the space of the last layer's rows.
        self.bridges = nn.ModuleList(nn.Linear(HIDDEN, HIDDEN) for _ in EXITS[:-1])
        self.heads = nn.ModuleList(kind() for kind in HEADS_BY_NAME[head])
        self.residual = head == "mixed"

    def forward(self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor) -> Tensor:
        """Three int64 inputs [batch, length] -> scores [batch, 3]; the last column is the model's."""
        token_type_ids = halves(token_type_ids)
        x = self.embeddings(input_ids, token_type_ids)
        masks = head_masks(input_ids, attention_mask, token_type_ids)
        sides, mask = attention_masks(attention_mask.to(x.dtype), token_type_ids.to(x.dtype))
        scores = []
        for i, layer in enumerate(self.layers, start=1):
            x = layer(x, sides, mask)
            if i in EXITS:
                # Heads stay in fp32: they are small, and scores near each other decide the order.
                place = EXITS.index(i)
                rows = x if i == LAYERS else self.bridges[place](x)
                scores.append(self.heads[place](rows.float(), masks))
        if self.residual:
            # The last score is a [CLS] correction of exit 4, so training starts at a ranking, not at noise.
            scores[-1] = scores[-1] + scores[-2]
        return torch.stack(scores, -1)


def halves(token_type_ids: Tensor) -> Tensor:
    """Return 1 for the passage with its own [CLS], to which tokenizers give the query's type."""
    following = F.pad(token_type_ids[:, 1:], (0, 1))
    return torch.maximum(token_type_ids, following)


def attention_masks(on: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    """Masks [batch, length] -> one-hot segments [batch, length, 2], key mask [batch, 1, length]."""
    return torch.stack([1 - second, second], -1), ((1 - on) * -1e4)[:, None]


def head_masks(
    input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor
) -> tuple[Tensor, ...]:
    """Return float masks [batch, length]: query, passage, and both without special tokens."""
    on, second = attention_mask.float(), token_type_ids.float()
    words = ((input_ids != CLS) & (input_ids != SEP)).float()
    query, passage = on * (1 - second), on * second
    return query, passage, query * words, passage * words
