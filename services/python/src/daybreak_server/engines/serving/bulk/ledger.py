"""The checkpoint of a task that computes a file: the stored parts of the output, and the last line of the input
whose result they contain.

A part is a piece of the output in the blob store. Its key has the number of the attempt that stored it, so no
attempt overwrites the part of another. Only parts in the reported checkpoint are used. An attempt begins with
these parts, in order, and continues after their last line. So no line is lost and none appears twice,
whatever was computed or stored after the checkpoint. An attempt drops the parts and begins at line 1 if the
fingerprint has changed (with the input file or the models, for example), if a part is missing, or if the bytes of a
part have changed.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace
from typing import Any

_VERSION = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputPart:
    """A piece of the output."""

    key: str
    size_bytes: int
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Ledger:
    """The progress of the output."""

    fingerprint: str
    """Identifies the input file, the parameters, the models and the workload's ``bulk_version``."""
    line: int = 0
    """The last line of the input whose result is in the parts."""
    offset: int = 0
    """Where that line ends in the input."""
    failed: int = 0
    """How many lines up to ``line`` have an error in place of a result."""
    parts: tuple[OutputPart, ...] = ()

    @property
    def size_bytes(self) -> int:
        """The size of all parts."""
        return sum(part.size_bytes for part in self.parts)

    def with_part(self, part: OutputPart, *, line: int, offset: int, failed: int) -> Ledger:
        """The ledger with one more part, which ends with this line."""
        return replace(self, line=line, offset=offset, failed=failed, parts=(*self.parts, part))

    def dump(self) -> bytes:
        """The ledger as the bytes of a snapshot."""
        value = {
            "version": _VERSION,
            "fingerprint": self.fingerprint,
            "line": self.line,
            "offset": self.offset,
            "failed": self.failed,
            "parts": [[part.key, part.size_bytes, part.sha256] for part in self.parts],
        }
        return json.dumps(value, separators=(",", ":")).encode()


def fingerprint_of(*facts: str) -> str:
    """A digest of the facts on which the results depend."""
    return hashlib.sha256("\0".join(facts).encode()).hexdigest()


def resumed(snapshot: bytes, fingerprint: str) -> Ledger | None:
    """The ledger of a snapshot, or ``None`` if the snapshot cannot be read, or has another fingerprint."""
    try:
        value: Any = json.loads(snapshot)
        if value["version"] != _VERSION or value["fingerprint"] != fingerprint:
            return None
        return Ledger(
            fingerprint=fingerprint,
            line=int(value["line"]),
            offset=int(value["offset"]),
            failed=int(value["failed"]),
            parts=tuple(
                OutputPart(key=str(key), size_bytes=int(size), sha256=str(sha256))
                for key, size, sha256 in value["parts"]
            ),
        )
    except (ValueError, KeyError, TypeError):
        return None
