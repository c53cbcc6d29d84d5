"""Scores of pairs seen before: optional, bounded, and visible in the result's usage."""

import hashlib
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace

from .. import Scored
from ..runtime.lru import LruCache

# What an entry takes: its key, two numbers, and what the cache adds.
_ENTRY_BYTES = 300


class ScoreCache:
    """Least recently used scores, bounded by bytes. Thread-safe.

    `model` identifies everything that decides a score: weights, limits, folding. Keys are hashes:
    no text is kept.
    """

    def __init__(self, model: str, max_bytes: int) -> None:
        self._key = hashlib.blake2b(model.encode(), digest_size=32).digest()
        # A score, and how many tokens of the passage the model did not read.
        self._entries: LruCache[tuple[float, int]] = LruCache(max_bytes)

    async def score(
        self,
        query: str,
        passages: Sequence[str],
        compute: Callable[[Sequence[str]], Awaitable[Scored]],
    ) -> Scored:
        """Take scores from the cache where it has them, and from `compute` the rest."""
        keys = self.keys(query, passages)
        known = self._entries.get(keys)
        missing = [i for i, entry in enumerate(known) if entry is None]
        fresh = await compute([passages[i] for i in missing])
        for place, i in enumerate(missing):
            if fresh.done[place]:
                entry = float(fresh.scores[place]), int(fresh.truncated_tokens[place])
                self._entries.put(keys[i], entry, _ENTRY_BYTES)
        hits = len(passages) - len(missing)
        if not hits:
            return fresh
        found = fresh.scatter(missing, len(passages))
        for i, cached in enumerate(known):
            if cached is not None:
                found.scores[i], found.truncated_tokens[i] = cached
                found.done[i] = True
        return replace(found, usage=replace(found.usage, score_cache_hits=hits))

    def keys(self, query: str, passages: Sequence[str]) -> list[bytes]:
        """Hash each pair."""
        text = query.encode("utf-8", "surrogatepass")
        # The length keeps query and passage apart.
        head = hashlib.blake2b(b"%d %b" % (len(text), text), key=self._key, digest_size=16)
        keys: list[bytes] = []
        for passage in passages:
            whole = head.copy()
            whole.update(passage.encode("utf-8", "surrogatepass"))
            keys.append(whole.digest())
        return keys
