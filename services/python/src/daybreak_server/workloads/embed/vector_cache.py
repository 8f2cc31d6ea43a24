"""A cache of the vectors of texts. The key is the kind of the text (query or document) and its exact tokens.

The tokens in the key include those of the prompt that the model puts before the text. A group has one model and one
cache, so a cache never holds vectors of two models.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import Any

from daybreak_server.workloads.batch_meter import BatchMeter

_ENTRY_BYTES = 300
"""The memory that an entry needs in addition to its tokens and its vector: Python objects, and slots in the table."""
Key = tuple[str, bytes]


class VectorCache:
    """Keeps the most recently used vectors, up to ``max_bytes`` in all. Any thread may call it."""

    def __init__(self, max_bytes: int, meter: BatchMeter) -> None:
        self._max_bytes = max_bytes
        self._meter = meter
        self._lock = threading.Lock()
        self._vectors: OrderedDict[Key, Any] = OrderedDict()
        self.size_bytes = 0
        self.hits = 0
        self.misses = 0

    @staticmethod
    def key(kind: str, ids: tuple[int, ...]) -> Key:
        """The key of a text. ``kind``: ``query`` or ``document``."""
        return kind, b"".join(token.to_bytes(4, "little") for token in ids)

    def get_each(self, keys: list[Key]) -> list[Any | None]:
        """The vector of each key, or ``None`` where the cache has none."""
        with self._lock:
            found = [self._vectors.get(key) for key in keys]
            for key, vector in zip(keys, found, strict=True):
                if vector is not None:
                    self._vectors.move_to_end(key)
            hits = sum(vector is not None for vector in found)
            self.hits += hits
            self.misses += len(keys) - hits
            size_bytes = self.size_bytes
        self._meter.cached(hits=hits, misses=len(keys) - hits, size_bytes=size_bytes)
        return found

    def put(self, key: Key, vector: Any) -> None:
        """Keep a vector (a numpy array). If there is no room for it, the least recently used vectors are dropped."""
        with self._lock:
            if key in self._vectors:
                return
            self._vectors[key] = vector
            self.size_bytes += self._size(key, vector)
            while self.size_bytes > self._max_bytes:
                left, old = self._vectors.popitem(last=False)
                self.size_bytes -= self._size(left, old)

    def shown(self) -> dict[str, int]:
        """What ``GET /debug`` shows."""
        return {
            "entries": len(self._vectors),
            "size_bytes": self.size_bytes,
            "hits": self.hits,
            "misses": self.misses,
        }

    @staticmethod
    def _size(key: Key, vector: Any) -> int:
        return len(key[1]) + int(vector.nbytes) + _ENTRY_BYTES
