"""A workload reports on its batches and its cache with these calls. They are cheap, may come from any thread, and never
raise."""

from __future__ import annotations

from typing import Protocol


class BatchMeter(Protocol):
    """Receives the measurements, which become the metrics ``daybreak_rank_batch…`` and ``daybreak_rank_cache…``."""

    def begin(self) -> None:
        """Publish 0 failures and 0 refusals, so that these metrics exist before the first failure or refusal."""

    def batch(self, items: int, seconds: float) -> None:
        """A batch of ``items`` items took ``seconds``."""

    def waited(self, seconds: float) -> None:
        """The items of a batch waited for at most ``seconds``. Items of bulk work do not count."""

    def failed(self) -> None:
        """A batch has raised an error."""

    def refused(self) -> None:
        """A request was refused, because too many items wait."""

    def waiting(self, items: int) -> None:
        """``items`` is the number of items that wait for a batch now."""

    def cached(self, *, hits: int, misses: int, size_bytes: int) -> None:
        """``hits`` items were found in the cache and ``misses`` were not. The cache now holds ``size_bytes``."""


class NoBatchMeter:
    """Measures nothing."""

    def begin(self) -> None:
        """Do nothing."""

    def batch(self, items: int, seconds: float) -> None:
        """Do nothing."""

    def waited(self, seconds: float) -> None:
        """Do nothing."""

    def failed(self) -> None:
        """Do nothing."""

    def refused(self) -> None:
        """Do nothing."""

    def waiting(self, items: int) -> None:
        """Do nothing."""

    def cached(self, *, hits: int, misses: int, size_bytes: int) -> None:
        """Do nothing."""


NO_BATCH_METER = NoBatchMeter()
