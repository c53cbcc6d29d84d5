"""The pairs of a request: made from token ids; their logits become scores of candidates."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ...records import Code, Decision, Usage
from ...rules.batching import Batch
from ...rules.windows import Fold, fold, led, reaching, windows
from .tokenizer import Ids, PairTokenizer

LongPassages: TypeAlias = Literal["window", "truncate", "error"]
# A window must hold enough of the passage to be worth a model run.
MIN_WINDOW_TOKENS = 16
# How far into a passage windows reach by default, counted in windows that fill the room.
_FULL_WINDOWS = 8
_NOTHING: Ids = np.zeros(0, np.int32)


@dataclass(frozen=True, slots=True)
class Windowing:
    """What happens to passages that do not fit beside the query.

    The first window fills the room that the query leaves, so that a passage a little too long is
    read like one that just fits.

    overlap: share of a window that the next one reads again.
    limit: the most windows of a passage; None reaches as far as eight that fill the room.
    size_tokens: size of the windows after the first, None for the same size.
    """

    long: LongPassages
    overlap: float
    limit: int | None
    size_tokens: int | None = None

    def most_tokens(self, room_tokens: int) -> int:
        """Return how many tokens of a passage decide its windows; more are only counted.

        A window lies elsewhere where less than one more window follows.
        """
        if self.long != "window" or self.limit == 1:
            return room_tokens + 1
        size = min(room_tokens, self.size_tokens or room_tokens)
        count = self.limit or reaching(size, room_tokens, count=_FULL_WINDOWS, overlap=self.overlap)
        return 2 * room_tokens + (count + 1) * size

    def spans(
        self, passage: Ids, room_tokens: int, ends: Sequence[int]
    ) -> tuple[tuple[int, int], ...]:
        """Return where windows start and stop; `ends` are the tokens that sentences end with."""
        split = self.long == "window" and room_tokens >= MIN_WINDOW_TOKENS and self.limit != 1
        if not split or len(passage) <= room_tokens:
            return windows(len(passage), room_tokens, limit=1)
        size = min(room_tokens, self.size_tokens or room_tokens)
        places = (np.flatnonzero(np.isin(passage, ends)) + 1).tolist()
        whole = self.limit or _FULL_WINDOWS
        if size == room_tokens:
            return windows(len(passage), size, overlap=self.overlap, limit=whole, ends=places)
        return led(
            len(passage),
            size,
            first_tokens=room_tokens,
            overlap=self.overlap,
            limit=self.limit or reaching(size, room_tokens, count=whole, overlap=self.overlap),
            ends=places,
        )


@dataclass(frozen=True, slots=True)
class Pairs:
    """The pairs of one query: one per candidate, or one per window of it.

    ids: per pair, the tokens of the passage or window.
    owners: per pair, the position of its candidate.
    lengths: per pair, tokens with query and special tokens.
    truncated: per candidate, tokens that no window reads.
    refused: per candidate, True if it is too long and the settings say "error".
    windowed: how many candidates have several windows.
    unread: the candidates that there was no time to tokenise.
    """

    query: Ids
    ids: list[Ids]
    owners: NDArray[np.intp]
    lengths: NDArray[np.int64]
    truncated: NDArray[np.int64]
    refused: NDArray[np.bool_]
    windowed: int
    unread: frozenset[int] = frozenset()

    @property
    def tokens(self) -> int:
        """Tokens of all pairs, without padding."""
        return int(self.lengths.sum())


def read(
    tokenizer: PairTokenizer,
    query: str,
    passages: Sequence[str],
    *,
    room: Callable[[Ids], int],
    windowing: Windowing,
    in_time: Callable[[], bool] | None = None,
) -> tuple[Pairs, int]:
    """Tokenise a request and make its pairs; also count the passages found in the token cache.

    Of a passage only what its windows can reach is read. `room` counts the passage tokens that fit
    beside a query. `in_time` is False once no more may be read. Raises `InvalidRequest` for a query
    that leaves no room.
    """
    query_ids = tokenizer.query(query)
    room_tokens = room(query_ids)
    # By the room beside no query: what the cache has does not depend on the query.
    most_tokens = windowing.most_tokens(room(np.zeros(0, np.int32)))
    readings, hits = tokenizer.readings(passages, most_tokens=most_tokens, in_time=in_time)
    made = make_pairs(
        query_ids,
        [_NOTHING if reading is None else reading.ids for reading in readings],
        room_tokens=room_tokens,
        special_tokens=tokenizer.template.special_tokens,
        windowing=windowing,
        ends=tokenizer.sentence_ends,
        unread=frozenset(i for i, reading in enumerate(readings) if reading is None),
    )
    rest = np.array([reading.unread_tokens if reading else 0 for reading in readings], np.int64)
    return replace(made, truncated=made.truncated + rest), hits


def make_pairs(
    query: Ids,
    passages: Sequence[Ids],
    *,
    room_tokens: int,
    special_tokens: int,
    windowing: Windowing,
    ends: Sequence[int] = (),
    unread: frozenset[int] = frozenset(),
) -> Pairs:
    """Make one pair per passage, or one per window where a passage takes more than the room."""
    sizes = np.array(list(map(len, passages)), dtype=np.int64)
    truncated = np.zeros(len(passages), dtype=np.int64)
    refused = np.zeros(len(passages), dtype=np.bool_)
    ids, owners = list(passages), list(range(len(passages)))
    windowed = 0
    if unread or (sizes > room_tokens).any():
        ids, owners = [], []
        for i, passage in enumerate(passages):
            if i in unread:
                continue
            spans = windowing.spans(passage, room_tokens, ends)
            truncated[i] = len(passage) - spans[-1][1]
            if truncated[i] and windowing.long == "error":
                refused[i] = True
                continue
            windowed += len(spans) > 1
            ids += [passage[start:stop] for start, stop in spans]
            owners += [i] * len(spans)
        sizes = np.array(list(map(len, ids)), dtype=np.int64)
    lengths = sizes + len(query) + special_tokens
    owned = np.array(owners, dtype=np.intp)
    return Pairs(query, ids, owned, lengths, truncated, refused, windowed, unread)


def candidate_scores(
    pairs: Pairs,
    batches: Sequence[Batch],
    logits: Sequence[NDArray[np.float32] | None],
    how: Fold,
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Return candidates' scores from the logits of batches, and which of them are done.

    A candidate is done with its last window; the scores of others mean nothing. The caller checks
    that scores are finite.
    """
    flat = np.zeros(len(pairs.ids), dtype=np.float32)
    ran = np.zeros(len(pairs.ids), dtype=np.bool_)
    for batch, values in zip(batches, logits, strict=True):
        if values is not None:
            flat[list(batch.pairs)] = values
            ran[list(batch.pairs)] = True
    whole = ~pairs.refused
    whole[list(pairs.unread)] = False
    done = whole.copy()
    done[pairs.owners[~ran]] = False
    scores = np.zeros(len(pairs.refused), dtype=np.float32)
    if not pairs.windowed:
        scores[pairs.owners] = flat
    elif len(flat):
        numbers = np.cumsum(whole) - 1
        scores[whole] = fold(flat, numbers[pairs.owners], int(whole.sum()), how)
    return scores, done


def subset(pairs: Pairs, places: Sequence[int]) -> tuple[Pairs, list[int]]:
    """Return the pairs of the candidates at `places`, in that order, and their old positions."""
    owned: list[list[int]] = [[] for _ in pairs.refused]
    for pair, owner in enumerate(pairs.owners.tolist()):
        owned[owner].append(pair)
    chosen = [pair for place in places for pair in owned[place]]
    owners = [i for i, place in enumerate(places) for _ in owned[place]]
    kept = Pairs(
        pairs.query,
        [pairs.ids[i] for i in chosen],
        np.array(owners, dtype=np.intp),
        pairs.lengths[chosen],
        pairs.truncated[list(places)],
        pairs.refused[list(places)],
        sum(len(owned[place]) > 1 for place in places),
    )
    return kept, chosen


def decisions(
    pairs: Pairs, done: NDArray[np.bool_], *, again: bool = False
) -> tuple[Decision, ...]:
    """Return what was windowed, cut, refused, or not scored for lack of time.

    `again`: an earlier stage read the same pairs and has recorded all but the last.
    """
    truncated = int(((pairs.truncated > 0) & ~pairs.refused).sum())
    missed = int((~done & ~pairs.refused).sum())
    counts = {
        Code.WINDOWED: ("split", pairs.windowed),
        Code.TRUNCATED: ("split", truncated),
        Code.TOO_LONG: ("split", int(pairs.refused.sum())),
        Code.DEADLINE: ("score", missed),
    }
    if again:
        counts = {Code.DEADLINE: counts[Code.DEADLINE]}
    return tuple(Decision(step, code, n) for code, (step, n) in counts.items() if n)


def usage(pairs: Pairs, ran: Sequence[Batch]) -> Usage:
    """Return what the batches that ran cost."""
    real = sum(int(pairs.lengths[i]) for batch in ran for i in batch.pairs)
    return Usage(
        pairs=sum(len(batch.pairs) for batch in ran),
        tokens=real,
        padding_tokens=sum(batch.padded_tokens for batch in ran) - real,
        truncated_tokens=int(pairs.truncated[~pairs.refused].sum()),
        batches=len(ran),
    )
