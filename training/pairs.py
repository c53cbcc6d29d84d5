"""Pairs for the model: token ids once, batches of groups of similar length."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from .encoder import tokenizer
from .mining import Weights, false_negatives, teacher_scores
from .model import CLS, SEP

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from torch import Tensor

QUERY_TOKENS = 48
# [CLS] query [SEP] [CLS] passage [SEP]: each half looks as the encoder knows it.
SPECIALS = 4
# How often a query's altered passage is in its group, and how far below the right one it is taught.
ALTERED_SHARE, ALTERED_GAP = 0.6, 2.0
CAPS, CAP_SHARES = (40, 64, 96, 168), (0.38, 0.34, 0.2, 0.08)


@dataclass(frozen=True, slots=True)
class Ragged:
    """Token ids of many texts in one array."""

    ids: np.ndarray
    starts: np.ndarray

    def line(self, i: int, cap: int) -> np.ndarray:
        """Return at most `cap` ids of text i."""
        return self.ids[self.starts[i] : min(self.starts[i + 1], self.starts[i] + cap)]


def ragged(texts: Sequence[str], max_tokens: int) -> Ragged:
    """Return the texts' ids without special tokens."""
    reader = tokenizer()
    lines = [
        line.ids[:max_tokens] for line in reader.encode_batch(list(texts), add_special_tokens=False)
    ]
    starts = np.zeros(len(lines) + 1, np.int64)
    np.cumsum([len(line) for line in lines], out=starts[1:])
    return Ragged(np.fromiter((i for line in lines for i in line), np.int32, starts[-1]), starts)


def collate(
    queries: Sequence[np.ndarray], passages: Sequence[np.ndarray]
) -> tuple[Tensor, Tensor, Tensor]:
    """Return input_ids, attention_mask, token_type_ids [pairs, longest] of [CLS] q [SEP] [CLS] p [SEP]."""
    longest = max(len(q) + len(p) for q, p in zip(queries, passages, strict=True)) + SPECIALS
    ids, on, kind = (np.zeros((len(queries), longest), np.int64) for _ in range(3))
    for row, (q, p) in enumerate(zip(queries, passages, strict=True)):
        end = len(q) + len(p) + SPECIALS
        ids[row, :end] = np.concatenate([[CLS], q, [SEP, CLS], p, [SEP]])
        on[row, :end] = 1
        kind[row, len(q) + 3 : end] = 1
    return torch.from_numpy(ids), torch.from_numpy(on), torch.from_numpy(kind)


@dataclass(frozen=True, slots=True)
class Mined:
    """Everything training needs: ids of queries and passages, candidates, teacher scores, what to leave out."""

    queries: Ragged
    passages: Ragged
    candidates: np.ndarray
    teacher: np.ndarray
    dropped: np.ndarray
    held_out: np.ndarray
    altered: np.ndarray
    sources: tuple[str, ...]

    @classmethod
    def read(cls, folder: Path, weights: Weights) -> Mined:
        """Read what `prepare` and `mine` wrote under `folder`."""
        rows = [json.loads(line) for line in (folder / "queries.jsonl").open(encoding="utf-8")]
        texts = [
            json.loads(line)["text"] for line in (folder / "passages.jsonl").open(encoding="utf-8")
        ]
        with np.load(folder / "mined.npz") as file:
            mined = {name: file[name] for name in file.files}
        return cls(
            ragged([row["query"] for row in rows], QUERY_TOKENS),
            ragged(texts, max(CAPS)),
            mined["candidates"],
            teacher_scores(mined, weights),
            false_negatives(mined),
            np.array([row["held_out"] for row in rows]),
            np.array([row.get("altered", -1) for row in rows]),
            tuple(row["source"] for row in rows),
        )


@dataclass(frozen=True, slots=True)
class Batch:
    """Groups of pairs: inputs [groups * size, length], teacher scores [groups, size], positive first."""

    inputs: tuple[Tensor, Tensor, Tensor]
    teacher: Tensor

    def part(self, rank: int, world: int) -> Batch:
        """Return this worker's share of the groups."""
        groups, size = self.teacher.shape
        share = groups // world
        rows = slice(rank * share * size, (rank + 1) * share * size)
        inputs = tuple(whole[rows] for whole in self.inputs)
        return Batch(inputs, self.teacher[rank * share : (rank + 1) * share])  # type: ignore[arg-type]


def _pick(data: Mined, query: int, size: int, rng: np.random.Generator) -> np.ndarray:
    """Return columns: the positive, then size - 1 others, hard ones twice as likely as easy ones."""
    width = data.candidates.shape[1]
    usable = np.flatnonzero(~data.dropped[query][1:]) + 1
    chances = np.where(usable <= width // 2, 2.0, 1.0)
    others = rng.choice(
        usable, min(size - 1, len(usable)), replace=False, p=chances / chances.sum()
    )
    while len(others) < size - 1:
        others = np.append(others, rng.integers(width // 2, width))
    return np.concatenate([[0], others])


def batches(data: Mined, *, groups: int, size: int, seed: int, start: int = 0) -> Iterator[Batch]:
    """Yield batches for ever, the same ones for the same seed; `start` skips the first batches.

    Groups are sorted by length among 8 batches' worth, so that little is padded.
    """
    usable = np.flatnonzero(~data.held_out)
    block = groups * 8
    per_epoch = len(usable) // block
    at = start // 8
    while True:
        epoch, place = divmod(at, per_epoch)
        order = np.random.default_rng((seed, epoch)).permutation(usable)
        rng = np.random.default_rng((seed, epoch, place))
        chosen = order[place * block : (place + 1) * block]
        made = [_group(data, int(query), size, rng) for query in chosen]
        made.sort(key=lambda group: max(len(passage) for passage in group[1]) + len(group[0]))
        turns = rng.permutation(8)
        for turn in turns[start % 8 if at == start // 8 else 0 :]:
            part = made[turn * groups : (turn + 1) * groups]
            inputs = collate(
                [query for query, passages, _ in part for _ in passages],
                [passage for _, passages, _ in part for passage in passages],
            )
            yield Batch(inputs, torch.from_numpy(np.stack([scores for _, _, scores in part])))
        at += 1


def _group(
    data: Mined, query: int, size: int, rng: np.random.Generator
) -> tuple[np.ndarray, list[np.ndarray], np.ndarray]:
    columns = _pick(data, query, size, rng)
    cap = int(rng.choice(CAPS, p=CAP_SHARES))
    chosen, teacher = data.candidates[query, columns], data.teacher[query, columns]
    if data.altered[query] >= 0 and rng.random() < ALTERED_SHARE:
        chosen[-1], teacher[-1] = data.altered[query], teacher[0] - ALTERED_GAP
    passages = [data.passages.line(int(i), cap) for i in chosen]
    return data.queries.line(query, QUERY_TOKENS), passages, teacher
