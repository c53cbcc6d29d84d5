"""Pairs as token ids: one tokenizer that is never changed after loading, and a bounded cache."""

import contextlib
import hashlib
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ...errors import InvalidRequest, ModelError
from ..models.content import Listed, read
from ..models.registry import Prompt
from ..runtime.lru import LruCache

if TYPE_CHECKING:
    from tokenizers import Tokenizer

Ids: TypeAlias = NDArray[np.int32]
# Longer texts are tokenised piece by piece, so that memory stays bounded by the ids alone.
_PIECE_CHARS = 50_000
_SENTENCE_ENDS = (".", "!", "?", "\u3002", "\uff01", "\uff1f", "\u0964", "\u061f", "\n")
# At most so much is tokenised at once: an encoding takes far more memory than its ids.
_GROUP_CHARS = 400_000
# The same under a deadline, so that the clock is looked at often enough.
_HURRIED_GROUP_CHARS = 50_000
# How much of a long text is read at first: so much for each token that is wanted of it, and no less
# than takes some milliseconds. The tokens of shorter texts are counted to the last.
_CHARS_PER_TOKEN, _LEAST_CHARS = 4, 20_000
# What a cache entry takes in addition to its ids.
_ENTRY_OVERHEAD_BYTES = 200


@dataclass(frozen=True, slots=True)
class Template:
    """The special tokens around a pair's query and passage, and the token type of each."""

    before: tuple[int, ...]
    between: tuple[int, ...]
    after: tuple[int, ...]
    query_type: int
    passage_type: int

    @property
    def special_tokens(self) -> int:
        """Count the special tokens of each pair."""
        return len(self.before) + len(self.between) + len(self.after)


@dataclass(frozen=True, slots=True)
class PairArrays:
    """A batch as the model reads it: int64 arrays [pairs, length]."""

    input_ids: NDArray[np.int64]
    attention_mask: NDArray[np.int64]
    token_type_ids: NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Reading:
    """A passage as far as it was read.

    unread_tokens: about how many tokens the rest of it has
    """

    ids: Ids
    unread_tokens: int = 0


class PairTokenizer:
    """Turns texts into token ids and ids into padded pairs.

    Thread-safe: truncation and padding are switched off once, at loading, and never touched again
    (a shared tokenizer whose state changes per call corrupts concurrent requests). Text that spells
    a special token, such as "[SEP]", is text: a passage cannot forge its own end.

    cache_bytes: bounds the memory of cached passage ids; 0 switches the cache off.
    pad: the padding id or token of the model, None for the tokenizer's own.
    prompt: a decoder's chat template, None to read the tokenizer's own pair template.
    listed: the hashes of the model's manifest, which the file must have; None without one.
    single: texts are read alone: queries are empty and the template is that of one text.
    sentence_ends: the tokens that sentences end with.
    """

    def __init__(
        self,
        path: Path,
        *,
        cache_bytes: int = 64 * 2**20,
        pad: int | str | None = None,
        prompt: Prompt | None = None,
        single: bool = False,
        listed: Listed = None,
    ) -> None:
        from tokenizers import Tokenizer

        self._prompt = prompt
        data = read(path, listed)
        with _failures(f"{path} is not a tokenizer.json"):
            self._tokenizer = Tokenizer.from_buffer(data)
            self.pad_id = _pad_id(self._tokenizer, pad)
            self._tokenizer.no_truncation()
            self._tokenizer.no_padding()
            if single:
                self.template = _single(self._tokenizer)
            elif prompt is None:
                self.template = _template(self._tokenizer)
            else:
                self.template = _prompted(self._tokenizer, prompt)
            self._tokenizer.encode_special_tokens = True
            self.sentence_ends = _sentence_ends(self._tokenizer)
        # One long text must not push out all others.
        self._cache: LruCache[Reading] = LruCache(cache_bytes, max_entry_bytes=cache_bytes // 8)

    def query(self, text: str) -> Ids:
        """Encode a query without special tokens, with what a prompt puts around it."""
        if self._prompt is None:
            return self._encode([text])[0]
        return np.concatenate(self._encode(self._prompt.ask(text)))

    def answers(self) -> tuple[int, int]:
        """Return the tokens of the prompt's two answers. Raises `ModelError` without a prompt."""
        texts = () if self._prompt is None else self._prompt.answers
        ids = [int(answer[0]) for answer in self._encode(texts) if len(answer) == 1]
        if len(ids) != 2:  # noqa: PLR2004 - irrelevant, relevant
            message = f"the answers {texts} are not one token each; this is another model's prompt"
            raise ModelError(message)
        return ids[0], ids[1]

    def passages(self, texts: Sequence[str]) -> tuple[list[Ids], int]:
        """Encode passages without special tokens; also count those found in the cache."""
        readings, hits = self.readings(texts)
        return [reading.ids for reading in readings if reading is not None], hits

    def readings(
        self,
        texts: Sequence[str],
        *,
        most_tokens: int | None = None,
        in_time: Callable[[], bool] | None = None,
    ) -> tuple[list[Reading | None], int]:
        """Encode passages without special tokens; also count those found in the cache.

        most_tokens: nothing behind so many tokens of a passage is wanted; None: the whole
        in_time: False once no more may be read; what is left then comes back as None
        """
        keys = [_key(text, most_tokens) for text in texts]
        found = self._cache.get(keys)
        missing = [i for i, reading in enumerate(found) if reading is None]
        lead = "" if self._prompt is None else " "
        fresh = self._read([lead + texts[i] for i in missing], most_tokens, in_time)
        for i, reading in zip(missing, fresh, strict=True):
            found[i] = reading
            if reading is not None:
                size = reading.ids.nbytes + _ENTRY_OVERHEAD_BYTES
                self._cache.put(keys[i], reading, size)
        return found, len(texts) - len(missing)

    def room(self, query: Ids, max_tokens: int) -> int:
        """Count the passage tokens that fit beside a query. Raises `InvalidRequest` if none do."""
        left = max_tokens - self.template.special_tokens - len(query)
        if left < 1:
            message = (
                f"the query takes {len(query)} tokens; with {self.template.special_tokens} special "
                f"tokens that leaves no room for a passage in the model's {max_tokens}. The query "
                "is never cut: shorten it, or raise max_tokens where the model allows"
            )
            raise InvalidRequest(message)
        return left

    def assemble(self, query: Ids, passages: Sequence[Ids], length_tokens: int) -> PairArrays:
        """Make pairs of one query and each passage, padded at the end to `length_tokens`."""
        template = self.template
        shape = (len(passages), length_tokens)
        ids = np.full(shape, self.pad_id, dtype=np.int64)
        mask = np.zeros(shape, dtype=np.int64)
        types = np.zeros(shape, dtype=np.int64)
        head = np.array([*template.before, *query.tolist(), *template.between], dtype=np.int64)
        ids[:, : len(head)] = head
        if template.query_type:
            types[:, : len(head)] = template.query_type
        for row, passage in enumerate(passages):
            stop = len(head) + len(passage)
            end = stop + len(template.after)
            ids[row, len(head) : stop] = passage
            ids[row, stop:end] = template.after
            mask[row, :end] = 1
            types[row, len(head) : end] = template.passage_type
        return PairArrays(ids, mask, types)

    def _read(
        self,
        texts: Sequence[str],
        most_tokens: int | None,
        in_time: Callable[[], bool] | None,
    ) -> list[Reading | None]:
        """Encode texts from their beginnings, as far as they are wanted.

        A beginning that gives too few tokens is read again, four times as far.
        """
        found: list[Reading | None] = [None] * len(texts)
        left = list(range(len(texts)))
        chars = None if most_tokens is None else first_chars(most_tokens)
        while left and (in_time is None or in_time()):
            heads = [_head(texts[i], chars) for i in left]
            short: list[int] = []
            for i, head, ids in zip(left, heads, self._encode(heads, in_time), strict=False):
                unread = len(texts[i]) - len(head)
                if unread and most_tokens is not None and len(ids) < most_tokens:
                    short.append(i)
                else:
                    found[i] = Reading(ids, math.ceil(unread * len(ids) / max(1, len(head))))
            left, chars = short, 4 * chars if chars is not None else None
        return found

    def _encode(self, texts: Sequence[str], in_time: Callable[[], bool] | None = None) -> list[Ids]:
        """Encode texts; those that there was no time for are missing at the end."""
        pieces = [_pieces(text) for text in texts]
        encoded: list[Ids] = []
        most_chars = _GROUP_CHARS if in_time is None else _HURRIED_GROUP_CHARS
        for group in _groups([piece for parts in pieces for piece in parts], most_chars):
            if encoded and in_time is not None and not in_time():
                break
            with _failures("the tokenizer fails on a text"):
                done = self._tokenizer.encode_batch_fast(group, add_special_tokens=False)
            encoded += [np.array(piece.ids, dtype=np.int32) for piece in done]
        out: list[Ids] = []
        place = 0
        for parts in pieces:
            chunk = encoded[place : place + len(parts)]
            if len(chunk) < len(parts):
                break
            out.append(chunk[0] if len(chunk) == 1 else np.concatenate(chunk))
            place += len(parts)
        return out


def first_chars(most_tokens: int) -> int:
    """Return how much of a text is read at first where so many of its tokens are wanted."""
    return max(_LEAST_CHARS, _CHARS_PER_TOKEN * most_tokens)


@contextlib.contextmanager
def _failures(what: str) -> Iterator[None]:
    """Raise whatever the tokenizer raises as a `ModelError`; its panics are no `Exception`."""
    try:
        yield
    except ModelError:
        raise
    except BaseException as error:
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        raise ModelError(f"{what} ({error}); export the model again") from error


def _key(text: str, most_tokens: int | None) -> bytes:
    """Return the key of a text in the cache; of a long one, also by how much of it is wanted."""
    data = text.encode("utf-8", "surrogatepass")
    whole = most_tokens is None or len(text) <= first_chars(most_tokens)
    salt = b"" if whole else b"%d" % (most_tokens or 0)
    return hashlib.blake2b(data, digest_size=16, salt=salt).digest()


def _head(text: str, chars: int | None) -> str:
    """Return about the first `chars` characters of a text, to the end of a word if there is one."""
    if chars is None or len(text) <= chars:
        return text
    stop = text.rfind(" ", chars // 2, chars)
    return text[: stop if stop > 0 else chars]


def _pieces(text: str) -> list[str]:
    """Split a long text at white space; replace lone surrogates, which no tokenizer takes."""
    if not text.isascii():
        text = text.encode("utf-8", "replace").decode("utf-8")
    pieces: list[str] = []
    start = 0
    while len(text) - start > _PIECE_CHARS:
        cut = text.rfind(" ", start + 1, start + _PIECE_CHARS)
        stop = cut if cut > start else start + _PIECE_CHARS
        pieces.append(text[start:stop])
        start = stop
    return [*pieces, text[start:]]


def _groups(pieces: Sequence[str], most_chars: int) -> Iterator[list[str]]:
    """Group pieces of together at most so many characters."""
    group: list[str] = []
    chars = 0
    for piece in pieces:
        if group and chars + len(piece) > most_chars:
            yield group
            group, chars = [], 0
        group.append(piece)
        chars += len(piece)
    if group:
        yield group


def _template(tokenizer: "Tokenizer") -> Template:
    """Read the pair template from an encoded example: this works with every post-processor."""
    probe = tokenizer.encode("a", "b", add_special_tokens=True)
    owners = [
        None if special else sequence
        for special, sequence in zip(probe.special_tokens_mask, probe.sequence_ids, strict=True)
    ]
    if 0 not in owners or 1 not in owners or None not in owners:
        message = (
            "the tokenizer does not mark pairs of texts with special tokens; expected a "
            "post-processor with a pair template, as cross-encoders have"
        )
        raise ModelError(message)
    first, second = owners.index(0), owners.index(1)
    query_end = len(owners) - owners[::-1].index(0)
    passage_end = len(owners) - owners[::-1].index(1)
    ids, types = probe.ids, probe.type_ids
    return Template(
        before=tuple(ids[:first]),
        between=tuple(ids[query_end:second]),
        after=tuple(ids[passage_end:]),
        query_type=types[first],
        passage_type=types[second],
    )


def _single(tokenizer: "Tokenizer") -> Template:
    """Read the template of one text from an encoded example; there may be no special tokens."""
    probe = tokenizer.encode("a", add_special_tokens=True)
    places = [place for place, special in enumerate(probe.special_tokens_mask) if not special]
    if not places:
        raise ModelError("the tokenizer gives no token for the text 'a'; export the model again")
    ids, kind = probe.ids, probe.type_ids[places[0]]
    return Template(
        tuple(ids[: places[0]]),
        (),
        tuple(ids[places[-1] + 1 :]),
        query_type=kind,
        passage_type=kind,
    )


def _sentence_ends(tokenizer: "Tokenizer") -> tuple[int, ...]:
    """Return the tokens that sentences and lines end with, as they follow a word.

    Marks that are not one token are left out, and so are line ends where the tokenizer drops white
    space.
    """
    found: set[int] = set()
    for mark in _SENTENCE_ENDS:
        ids = tokenizer.encode("a" + mark, add_special_tokens=False).ids
        if tokenizer.decode(ids[-1:]) == mark:
            found.add(ids[-1])
    return tuple(sorted(found))


def _prompted(tokenizer: "Tokenizer", prompt: Prompt) -> Template:
    """Encode what a prompt puts around every pair; special tokens stay special."""

    def ids(parts: Sequence[str]) -> tuple[int, ...]:
        encoded = (tokenizer.encode(part, add_special_tokens=False).ids for part in parts)
        return tuple(number for part in encoded for number in part)

    return Template(ids(prompt.before), (), ids(prompt.after), query_type=0, passage_type=0)


def _pad_id(tokenizer: "Tokenizer", pad: int | str | None) -> int:
    """Find the padding id: the model's, the tokenizer's, or one of the usual names.

    A wrong id matters only to models that count positions by it (RoBERTa): padding is masked.
    """
    if isinstance(pad, int) and 0 <= pad < tokenizer.get_vocab_size(with_added_tokens=True):
        return pad
    own = tokenizer.padding
    names = (pad, own and own["pad_token"], "[PAD]", "<pad>", "<|padding|>", "<|endoftext|>")
    found = (tokenizer.token_to_id(name) for name in names if isinstance(name, str))
    return next((number for number in found if number is not None), 0)
