"""What one request has to send: texts, or the tensors that were read off them here."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ..records import Code, Decision
from ..rules.batching import Batch
from ..scoring.models.files import padding, sides
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


class Cargo(Protocol):
    """What is sent for n texts, and how what comes back belongs to them."""

    @property
    def texts(self) -> Sequence[str]:
        """Give the text behind each thing that is sent, as the audit sees it."""

    @property
    def whole(self) -> Sequence[str]:
        """Give the same texts uncut, as the policy knows them."""

    @property
    def truncated(self) -> NDArray[np.int64]:
        """Count the tokens of each of the n texts that are not sent."""

    @property
    def tokens(self) -> int:
        """Count the tokens sent, 0 where that is not known here."""

    def tensors(self, places: Sequence[int]) -> Mapping[str, NDArray[np.int64]]:
        """Give the tensors of a call, none where text is sent."""

    def unload(
        self, values: NDArray[np.float32]
    ) -> tuple[NDArray[np.float32], NDArray[np.bool_], tuple[Decision, ...]]:
        """Turn a value for each thing sent into scores [n], which of them count, and what to say.

        Without values it says what would have been cut.
        """

    def owners(self, places: Collection[int]) -> int:
        """Count the texts behind things that were sent."""


@dataclass(frozen=True, slots=True)
class Texts:
    """Texts as they are, cut at what a provider takes."""

    texts: Sequence[str]
    whole: Sequence[str]
    truncated: NDArray[np.int64]
    tokens: int = 0

    @classmethod
    def cut(cls, texts: Sequence[str], most_chars: int | None) -> "Texts":
        """Cut texts; what was cut of them is estimated in tokens."""
        most = max(map(len, texts), default=0) if most_chars is None else most_chars
        over = np.array([max(0, len(text) - most) for text in texts], dtype=np.int64)
        return cls([text[:most] for text in texts], texts, -(-over // _CHARS_PER_TOKEN))

    def tensors(self, places: Sequence[int]) -> Mapping[str, NDArray[np.int64]]:  # noqa: ARG002
        """Give none."""
        return {}

    def unload(
        self, values: NDArray[np.float32]
    ) -> tuple[NDArray[np.float32], NDArray[np.bool_], tuple[Decision, ...]]:
        """Give the values as they are."""
        cut = int((self.truncated > 0).sum())
        said = Decision("send", Code.TRUNCATED, cut, "cut to what the provider takes")
        return values, np.ones(len(values), dtype=np.bool_), (said,) if cut else ()

    def owners(self, places: Collection[int]) -> int:
        """Count the texts themselves."""
        return len(places)


@dataclass(frozen=True, slots=True)
class ReadingOptions:
    """How texts become tensors for a destination that takes no text.

    `tokenizer` is a folder, a hub id or "embedded": the model's own tokenizer and configuration, no
    weights. `token_types` says whether the graph takes token_type_ids (None: where its tokenizer
    tells queries and passages apart). Of `how`, what concerns reading counts, as for a model that
    is run here.
    """

    tokenizer: str | Path
    token_types: bool | None = None
    how: OnnxOptions = field(default_factory=OnnxOptions)
    hub: Hub = field(default_factory=Hub)


class Reader:
    """Reads texts with a model's own tokenizer. Thread-safe.

    Raises `ModelError` where there is no tokenizer, and `ConfigError` for more tokens than the
    model takes.
    """

    def __init__(self, options: ReadingOptions) -> None:
        files = sides(options.tokenizer, hub=options.hub)
        self.how = checked(options.how, files)
        self.max_tokens = self.how.max_tokens or usable_tokens(files)
        self.tokenizer = PairTokenizer(
            files.tokenizer,
            cache_bytes=self.how.token_cache_bytes,
            pad=padding(files),
            prompt=prompt_of(files, self.how.template, self.how.instruction),
        )
        template = self.tokenizer.template
        typed = template.query_type != template.passage_type
        self.typed = typed if options.token_types is None else options.token_types

    def read(self, query: str, texts: Sequence[str]) -> "Tensors":
        """Tokenise and lay out a request. Raises `InvalidRequest` for too long a query."""
        laid, _ = pairs.read(
            self.tokenizer,
            query,
            texts,
            room=lambda asked: self.tokenizer.room(asked, self.max_tokens),
            windowing=self.how.windowing,
        )
        order = np.argsort(-laid.lengths, kind="stable").tolist()
        owners = laid.owners.tolist()
        return Tensors(self, laid, order, [texts[owners[pair]] for pair in order])

    def lay(self, laid: Pairs, chosen: Sequence[int]) -> Mapping[str, NDArray[np.int64]]:
        """Lay out pairs, padded to one of few lengths."""
        longest = max(int(laid.lengths[pair]) for pair in chosen)
        steps = -(-longest // _LENGTH_STEP_TOKENS) * _LENGTH_STEP_TOKENS
        length = next((one for one in _LENGTHS_TOKENS if one >= longest), steps)
        arrays = self.tokenizer.assemble(
            laid.query, [laid.ids[pair] for pair in chosen], min(length, self.max_tokens)
        )
        tensors = {"input_ids": arrays.input_ids, "attention_mask": arrays.attention_mask}
        return {**tensors, "token_type_ids": arrays.token_type_ids} if self.typed else tensors


@dataclass(frozen=True, slots=True)
class Tensors:
    """A request's pairs, sent in `order`: longest first, so that a call pads little."""

    reader: Reader
    laid: Pairs
    order: list[int]
    texts: Sequence[str]

    @property
    def whole(self) -> Sequence[str]:
        """Give the texts that the pairs are windows of."""
        return self.texts

    @property
    def truncated(self) -> NDArray[np.int64]:
        """Count what no window holds."""
        return self.laid.truncated

    @property
    def tokens(self) -> int:
        """Count the tokens of all pairs."""
        return self.laid.tokens

    def tensors(self, places: Sequence[int]) -> Mapping[str, NDArray[np.int64]]:
        """Lay out the pairs of a call."""
        return self.reader.lay(self.laid, [self.order[place] for place in places])

    def unload(
        self, values: NDArray[np.float32]
    ) -> tuple[NDArray[np.float32], NDArray[np.bool_], tuple[Decision, ...]]:
        """Fold the windows' values into scores."""
        longest = int(self.laid.lengths.max(initial=0))
        whole = [Batch(tuple(self.order), longest)] if self.order else []
        scores, done = pairs.bring_back(
            self.laid, whole, [values] if whole else [], self.reader.how.fold
        )
        return scores, done, pairs.decisions(self.laid, done)

    def owners(self, places: Collection[int]) -> int:
        """Count the texts behind pairs."""
        return len({int(self.laid.owners[self.order[place]]) for place in places})
