"""The cache of vectors: its size is bounded, and the vectors that were used last stay."""

from __future__ import annotations

import threading

import numpy as np

from daybreak_server.workloads.batch_meter import NO_BATCH_METER
from daybreak_server.workloads.embed.vector_cache import VectorCache

VECTOR = np.zeros(64, dtype=np.float32)


def test_its_size_is_bounded_and_what_was_used_last_stays() -> None:
    cache = VectorCache(3_000, NO_BATCH_METER)
    keys = [cache.key("document", (number,)) for number in range(20)]
    for key in keys:
        cache.put(key, VECTOR)
        cache.get_each([keys[0]])
        assert cache.size_bytes <= 3_000
    found = cache.get_each(keys)
    kept = [number for number, vector in enumerate(found) if vector is not None]
    assert kept[0] == 0
    assert kept[1:] == list(range(21 - len(kept), 20))
    assert len(kept) >= 4


def test_a_vector_larger_than_the_cache_is_not_kept() -> None:
    cache = VectorCache(100, NO_BATCH_METER)
    cache.put(cache.key("query", (1,)), VECTOR)
    assert (cache.size_bytes, cache.shown()["entries"]) == (0, 0)


def test_keys_are_exact() -> None:
    key = VectorCache.key
    assert key("query", (1, 2)) != key("document", (1, 2))
    assert key("query", (1, 2)) != key("query", (2, 1))
    assert key("query", (1, 256)) != key("query", (1, 1, 0))
    assert key("query", ()) != key("query", (0,))


def test_threads_may_share_it() -> None:
    cache = VectorCache(20_000, NO_BATCH_METER)

    def work(start: int) -> None:
        for number in range(start, start + 300):
            key = cache.key("document", (number % 97,))
            if cache.get_each([key])[0] is None:
                cache.put(key, VECTOR)

    threads = [threading.Thread(target=work, args=(start,)) for start in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    shown = cache.shown()
    assert shown["hits"] + shown["misses"] == 8 * 300
    assert cache.size_bytes == shown["entries"] * (4 + VECTOR.nbytes + 300)
