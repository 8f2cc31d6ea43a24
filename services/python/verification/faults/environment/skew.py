"""Makes the wall clock of chosen processes jump while these processes run, with a preloaded library (``skew.c``).

Monotonic clocks, sleeps and timeouts stay correct, as when an administrator or NTP steps a machine's wall clock.
(libfaketime does not work here: under it, Python's ``time.sleep`` fails with EINVAL.)
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from pathlib import Path

from verification.faults.environment.preload import build

_SOURCE = Path(__file__).with_name("skew.c")


class Skew:
    """One wall clock, shared by all processes that start with its ``environment``."""

    def __init__(self, folder: Path, name: str) -> None:
        """:raises PreloadAbsentError: if this machine cannot build the library."""
        self._file = folder / f"{name}.skew"
        self._file.write_bytes(bytes(8))
        library = build(_SOURCE, folder / f"{name}.so")
        self.environment: Mapping[str, str] = {"LD_PRELOAD": str(library), "SKEW_FILE": str(self._file)}

    def step_to(self, seconds: int) -> None:
        """Put the clock this many seconds ahead of the real time. A negative number puts it behind."""
        with self._file.open("r+b", buffering=0) as file:
            file.write(struct.pack("=q", seconds))
