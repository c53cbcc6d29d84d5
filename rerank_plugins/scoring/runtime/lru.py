"""A bounded cache that drops what was used least recently."""

import threading
from collections import OrderedDict
from collections.abc import Sequence
from typing import Generic, TypeVar

V = TypeVar("V")


class LruCache(Generic[V]):
    """Values under hashed keys, bounded by bytes. Thread-safe.

    Hand-written because libraries' caches bound the number of entries or are not thread-safe.
    `max_entry_bytes` (None: no limit of its own) keeps a big value from pushing out all others.
    """

    def __init__(self, max_bytes: int, max_entry_bytes: int | None = None) -> None:
        self._max_bytes = max_bytes
        self._max_entry_bytes = max_bytes if max_entry_bytes is None else max_entry_bytes
        self._bytes = 0
        self._entries: OrderedDict[bytes, tuple[V, int]] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, keys: Sequence[bytes]) -> list[V | None]:
        """Return the value of each key, None where there is none; mark them as used."""
        found: list[V | None] = []
        with self._lock:
            for key in keys:
                entry = self._entries.get(key)
                if entry is not None:
                    self._entries.move_to_end(key)
                found.append(None if entry is None else entry[0])
        return found

    def put(self, key: bytes, value: V, size_bytes: int) -> None:
        """Keep a value that takes `size_bytes`; a key that is known keeps its value."""
        if size_bytes > self._max_entry_bytes:
            return
        with self._lock:
            if key in self._entries:
                return
            self._entries[key] = (value, size_bytes)
            self._bytes += size_bytes
            while self._bytes > self._max_bytes:
                _, (_, dropped_bytes) = self._entries.popitem(last=False)
                self._bytes -= dropped_bytes
