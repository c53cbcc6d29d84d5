"""A bounded cache: within its bytes, safe for threads, and the least recently used leaves."""

import threading

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from rerank_plugins.scoring.runtime.lru import LruCache


def held(cache):
    """Return the sizes of what a cache of sizes holds."""
    return [size for size in cache.get([bytes([key]) for key in range(50)]) if size is not None]


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 500)), max_size=200))
def test_the_cache_keeps_its_bound(entries):
    """Whatever is put in, the bytes held stay below the bound and the newest is there."""
    cache = LruCache(2_000)
    sizes = dict(reversed(entries))
    for key, _ in entries:
        cache.put(bytes([key]), sizes[key], sizes[key])
        assert cache.get([bytes([key])]) == [sizes[key]]
        assert sum(held(cache)) <= 2_000


def test_the_least_recently_used_leaves():
    """Room for two: the entry not asked for makes room."""
    cache = LruCache(2)
    cache.put(b"one", 1, 1)
    cache.put(b"two", 2, 1)
    assert cache.get([b"one"]) == [1]
    cache.put(b"three", 3, 1)
    assert cache.get([b"one", b"two", b"three"]) == [1, None, 3]


def test_no_room_keeps_nothing_and_a_big_entry_does_not_push_out_the_rest():
    """0 bytes switch the cache off; what is over the limit of one entry is not kept."""
    off = LruCache(0)
    off.put(b"k", 1, 1)
    assert off.get([b"k"]) == [None]
    small = LruCache(100, max_entry_bytes=12)
    small.put(b"small", 1, 12)
    small.put(b"big", 2, 13)
    assert small.get([b"small", b"big"]) == [1, None]


def test_the_cache_stands_concurrent_use():
    """Readers and writers at once leave it within its bound."""
    cache = LruCache(500)

    def work(seed):
        random = np.random.default_rng(seed)
        for key in random.integers(0, 50, 500).tolist():
            if cache.get([bytes([key])]) == [None]:
                cache.put(bytes([key]), key, key)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert 400 < sum(held(cache)) <= 500
