"""What one request sends: texts, or the tensors that they are tokenised to here."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ..records import Code, Decision
from ..rules.batching import Batch
from ..scoring import Scored
from ..scoring.models.files import find_without_graph, padding
from ..scoring.models.hub import Hub
from ..scoring.onnx.decoder import prompt_of
from ..scoring.onnx.options import OnnxOptions, checked, usable_tokens
from ..scoring.text import pairs
from ..scoring.text.pairs import Pairs
from ..scoring.text.tokenizer import PairTokenizer

_CHARS_PER_TOKEN = 4
# Servers merge requests of equal shape only: few lengths let them.
_LENGTHS_TOKENS = (32, 64, 96, 128, 192, 256, 384, 512)
_LENGTH_STEP_TOKENS = 128


class Payload(Protocol):
    """The items that are sent for n texts: the texts themselves, or their pairs with the query."""

    @property
    def texts(self) -> Sequence[str]:
        """The text of each item as it is sent, for the audit."""

    @property
    def full_texts(self) -> Sequence[str]:
        """The whole text of each item, as the policy knows it."""

    @property
    def tokens(self) -> int:
        """The tokens of all items, 0 where that is not known here."""

    def tensors(self, items: Sequence[int]) -> Mapping[str, NDArray[np.int64]]:
        """Return the tensors of a call for these items, none where text is sent."""

    def scored(self, values: NDArray[np.float32]) -> Scored:
        """Return the scores of the n texts for the values of all items."""

    def count_texts(self, items: Collection[int]) -> int:
        """Count the texts behind these items."""


@dataclass(frozen=True, slots=True)
class TextPayload:
    """Texts, cut to what a provider takes."""

    texts: Sequence[str]
    full_texts: Sequence[str]
    tokens: int = 0

    @classmethod
    def cut(cls, texts: Sequence[str], max_chars: int | None) -> "TextPayload":
        """Return the payload for texts of any length."""
        return cls([text[:max_chars] for text in texts], texts)

    def tensors(self, items: Sequence[int]) -> Mapping[str, NDArray[np.int64]]:  # noqa: ARG002
        """Return none."""
        return {}

    def scored(self, values: NDArray[np.float32]) -> Scored:
        """Return the values as scores; the tokens that were cut are estimated."""
        lost = [
            len(full) - len(text) for full, text in zip(self.full_texts, self.texts, strict=True)
        ]
        truncated = -(-np.array(lost, dtype=np.int64) // _CHARS_PER_TOKEN)
        cut = int((truncated > 0).sum())
        decision = Decision("send", Code.TRUNCATED, cut, "cut to what the provider takes")
        done = np.ones(len(values), dtype=np.bool_)
        return Scored(values, done, truncated, decisions=(decision,) if cut else ())

    def count_texts(self, items: Collection[int]) -> int:
        """Count the items, which are the texts."""
        return len(items)


@dataclass(frozen=True, slots=True)
class ReadingOptions:
    """How texts become tensors for a destination that takes no text.

    tokenizer: folder, hub id or "embedded": the model's tokenizer and configuration, no weights
    token_types: send token_type_ids; None: where the tokenizer tells queries and passages apart
    how: as for a model that runs here; only what concerns reading counts
    """

    tokenizer: str | Path
    token_types: bool | None = None
    how: OnnxOptions = field(default_factory=OnnxOptions)
    hub: Hub = field(default_factory=Hub)


class Reader:
    """Tokenises texts with the model's own tokenizer. Thread-safe.

    Raises `ModelError` where there is no tokenizer, and `ConfigError` for more tokens than the
    model takes.
    """

    def __init__(self, options: ReadingOptions) -> None:
        files = find_without_graph(options.tokenizer, hub=options.hub)
        self.how = checked(options.how, files)
        self.max_tokens = self.how.max_tokens or usable_tokens(files)
        self.tokenizer = PairTokenizer(
            files.tokenizer,
            cache_bytes=self.how.token_cache_bytes,
            pad=padding(files),
            prompt=prompt_of(files, self.how.template, self.how.instruction),
            listed=files.listed,
        )
        template = self.tokenizer.template
        typed = template.query_type != template.passage_type
        self.typed = typed if options.token_types is None else options.token_types

    def read(self, query: str, texts: Sequence[str]) -> "TensorPayload":
        """Return the payload of a request. Raises `InvalidRequest` for too long a query."""
        laid, _ = pairs.read(
            self.tokenizer,
            query,
            texts,
            room=partial(self.tokenizer.room, max_tokens=self.max_tokens),
            windowing=self.how.windowing,
        )
        order = np.argsort(-laid.lengths, kind="stable").tolist()
        owners = laid.owners.tolist()
        return TensorPayload(self, laid, order, [texts[owners[pair]] for pair in order])

    def tensors(self, laid: Pairs, chosen: Sequence[int]) -> Mapping[str, NDArray[np.int64]]:
        """Return the tensors of some pairs, padded to one of few lengths."""
        longest = max(int(laid.lengths[pair]) for pair in chosen)
        steps = -(-longest // _LENGTH_STEP_TOKENS) * _LENGTH_STEP_TOKENS
        length = next((length for length in _LENGTHS_TOKENS if length >= longest), steps)
        arrays = self.tokenizer.assemble(
            laid.query, [laid.ids[pair] for pair in chosen], min(length, self.max_tokens)
        )
        tensors = {"input_ids": arrays.input_ids, "attention_mask": arrays.attention_mask}
        return {**tensors, "token_type_ids": arrays.token_type_ids} if self.typed else tensors


@dataclass(frozen=True, slots=True)
class TensorPayload:
    """The pairs of a request as tensors.

    order: the pairs in the order in which they are sent: longest first, so that a call pads little
    texts: the whole text of each pair, in that order
    """

    reader: Reader
    laid: Pairs
    order: list[int]
    texts: Sequence[str]

    @property
    def full_texts(self) -> Sequence[str]:
        """The texts that the pairs are windows of."""
        return self.texts

    @property
    def tokens(self) -> int:
        """The tokens of all pairs."""
        return self.laid.tokens

    def tensors(self, items: Sequence[int]) -> Mapping[str, NDArray[np.int64]]:
        """Return the tensors of a call."""
        return self.reader.tensors(self.laid, [self.order[item] for item in items])

    def scored(self, values: NDArray[np.float32]) -> Scored:
        """Fold the values of windows into scores of texts."""
        batches = [Batch(tuple(self.order), int(self.laid.lengths.max()))] if self.order else []
        scores, done = pairs.candidate_scores(
            self.laid, batches, [values] if batches else [], self.reader.how.fold
        )
        said = pairs.decisions(self.laid, done)
        return Scored(scores, done, self.laid.truncated, decisions=said)

    def count_texts(self, items: Collection[int]) -> int:
        """Count the texts behind pairs."""
        return len({int(self.laid.owners[self.order[item]]) for item in items})
