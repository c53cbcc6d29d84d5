"""Scores of pairs seen before: optional, bounded, and visible in the result's usage."""

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace

import numpy as np

from .. import Scored

# What an entry takes besides nothing: key, two numbers, the ordered dictionary's own.
_ENTRY_BYTES = 300


class ScoreCache:
    """Least recently used scores, bounded by bytes. Thread-safe.

    `model` identifies everything that decides a score: weights, limits, folding. Keys are hashes:
    no text is kept.
    """

    def __init__(self, model: str, max_bytes: int) -> None:
        self._model = model.encode()
        self._room = max_bytes // _ENTRY_BYTES
        self._entries: OrderedDict[bytes, tuple[float, int]] = OrderedDict()
        self._lock = threading.Lock()

    def keys(self, query: str, passages: Sequence[str]) -> list[bytes]:
        """Hash each pair."""
        text = query.encode("utf-8", "surrogatepass")
        # The length keeps query and passage apart.
        head = hashlib.blake2b(b"%d %b" % (len(text), text), key=self._key(), digest_size=16)
        keys: list[bytes] = []
        for passage in passages:
            whole = head.copy()
            whole.update(passage.encode("utf-8", "surrogatepass"))
            keys.append(whole.digest())
        return keys

    def get(self, keys: Sequence[bytes]) -> list[tuple[float, int] | None]:
        """Give score and truncated tokens of each key, None where unknown."""
        with self._lock:
            found = [self._entries.get(key) for key in keys]
            for key, entry in zip(keys, found, strict=True):
                if entry is not None:
                    self._entries.move_to_end(key)
        return found

    def put(self, key: bytes, score: float, truncated_tokens: int) -> None:
        """Keep a score, pushing out the least recently used."""
        with self._lock:
            self._entries[key] = (score, truncated_tokens)
            while len(self._entries) > self._room:
                self._entries.popitem(last=False)

    def _key(self) -> bytes:
        return hashlib.blake2b(self._model, digest_size=32).digest()


async def scores(
    cache: ScoreCache,
    query: str,
    passages: Sequence[str],
    compute: Callable[[Sequence[str]], Awaitable[Scored]],
) -> Scored:
    """Answer from the cache what it knows and from `compute` the rest, which is then kept."""
    keys = cache.keys(query, passages)
    known = cache.get(keys)
    missing = [i for i, entry in enumerate(known) if entry is None]
    fresh = await compute([passages[i] for i in missing])
    for place, i in enumerate(missing):
        if fresh.done[place]:
            cache.put(keys[i], float(fresh.scores[place]), int(fresh.truncated_tokens[place]))
    if len(missing) == len(passages):
        return fresh
    entries = [entry or (0.0, 0) for entry in known]
    values = np.array([score for score, _ in entries], dtype=np.float32)
    truncated = np.array([tokens for _, tokens in entries], dtype=np.int64)
    done = np.ones(len(passages), dtype=np.bool_)
    values[missing], truncated[missing], done[missing] = (
        fresh.scores,
        fresh.truncated_tokens,
        fresh.done,
    )
    hits = len(passages) - len(missing)
    return replace(
        fresh,
        scores=values,
        done=done,
        truncated_tokens=truncated,
        state=None,
        usage=replace(fresh.usage, score_cache_hits=hits),
    )
