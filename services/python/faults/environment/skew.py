"""The wall clock of single processes, stepped while they run: libfaketime, where it is installed.

Monotonic clocks stay true, as they do when an administrator or NTP steps a machine's wall clock.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

_PLACES = (
    "/usr/lib/*/faketime/libfaketime.so.1",
    "/usr/lib*/faketime/libfaketime.so.1",
    "/usr/local/lib/faketime/libfaketime.so.1",
)


def find_library() -> Path | None:
    """libfaketime, or ``None``."""
    return next((found for place in _PLACES for found in Path("/").glob(place.lstrip("/"))), None)


class Skew:
    """One wall clock, shared by all processes that are started with its ``environment``."""

    def __init__(self, library: Path, folder: Path, name: str) -> None:
        self._file = folder / f"{name}.clock"
        self.by_s = 0
        self.step_to(0)
        self.environment: Mapping[str, str] = {
            "LD_PRELOAD": str(library),
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "DONT_FAKE_MONOTONIC": "1",
        }

    def step_to(self, seconds: int) -> None:
        """From now on the clock is wrong by so much."""
        fresh = self._file.with_suffix(".new")
        fresh.write_text(f"{seconds:+d}\n")
        fresh.replace(self._file)
        self.by_s = seconds
