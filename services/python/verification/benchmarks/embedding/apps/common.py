"""The parts that the apps of the peers share: the model, the format of the answer, and a count of the batches.

A peer is another server with which Daybreak is compared. This module uses only the standard library, torch and
sentence-transformers, because each app runs in the virtual environment of its peer. The answer has OpenAI's format,
but leaves out fields that no client reads.
"""

from __future__ import annotations

import base64
import mmap
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

MODEL, COUNTS, MAX_BATCH, WAIT_MS = "BENCH_MODEL", "BENCH_COUNTS", "BENCH_MAX_BATCH", "BENCH_WAIT_MS"
"""The names of environment variables: for the model's folder, the file of the counts, and the settings of batches."""
_WORDS, _WORD = 2, 8


class BatchCount:
    """Counts batches and their items in a file that is mapped into memory. Only one process writes to the file."""

    def __init__(self, path: Path) -> None:
        with path.open("w+b") as file:
            file.truncate(_WORDS * _WORD)
            self._view = memoryview(mmap.mmap(file.fileno(), 0)).cast("q")

    def add(self, items: int) -> None:
        """Count a batch."""
        self._view[0] += 1
        self._view[1] += items


def read_counts(path: Path) -> tuple[int, int]:
    """The number of batches and the number of items that were counted so far."""
    data = path.read_bytes() if path.exists() else b""
    if len(data) < _WORDS * _WORD:
        return 0, 0
    batches, items = memoryview(data).cast("q")
    return batches, items


def max_batch() -> int:
    """The most items that a batch may have."""
    return int(os.environ[MAX_BATCH])


def wait_s() -> float:
    """The longest time that the first item of a batch waits for other items."""
    return float(os.environ[WAIT_MS]) / 1000


class Encoder:
    """The model, called as in the documentation of sentence-transformers."""

    def __init__(self) -> None:
        import torch
        from sentence_transformers import SentenceTransformer

        torch.set_num_threads(1)
        self._model: Any = SentenceTransformer(os.environ[MODEL], device="cpu")
        self._counts = BatchCount(Path(os.environ[COUNTS]))
        self._most = max_batch()

    def encode(self, texts: Sequence[str]) -> Any:
        """The vectors of the texts, one row for each text."""
        self._counts.add(len(texts))
        return self._model.encode(list(texts), batch_size=self._most, show_progress_bar=False)


def text_of(body: dict[str, Any]) -> tuple[str, bool]:
    """The text of a request, and whether the answer must have the vector in base64."""
    return body["input"], body.get("encoding_format") == "base64"


def answer(vector: Any, as_base64: bool) -> dict[str, Any]:
    """The body of an answer that has one vector."""
    shown = base64.b64encode(vector.tobytes()).decode() if as_base64 else vector.tolist()
    return {"object": "list", "data": [{"object": "embedding", "index": 0, "embedding": shown}]}
