"""A task's trace as JSON. A field is absent if it is unknown or does not apply.

``start_s`` and ``end_s`` are seconds since the submit.
"""

from __future__ import annotations

from typing import Any

from daybreak.core.task_trace import Part, Piece, TaskTrace
from daybreak.wire.base import format_time


def to_json(trace: TaskTrace) -> dict[str, Any]:
    """The JSON object of a trace."""
    return _present(
        {
            "id": trace.task,
            "object": "trace",
            "state": trace.state.value,
            "began_at": format_time(trace.began),
            "total_s": trace.total_ms / 1000,
            "usage": trace.usage.to_json() if trace.usage is not None else None,
            "reason": trace.reason,
            "trimmed": trace.trimmed,
            "traceparent": trace.traceparent,
            "parts": [_part(part) for part in trace.parts],
        }
    )


def _part(part: Part) -> dict[str, Any]:
    return _present(
        {
            "kind": part.kind.value,
            "attempt": part.attempt,
            "start_s": part.start_ms / 1000,
            "end_s": part.end_ms / 1000,
            "group": part.group,
            "ranks": part.ranks,
            "gpu_seconds": part.gpu_seconds,
            "resumed_from_step": part.resumed_from_step,
            "outcome": part.outcome,
            "message": part.message,
            "checkpoints": list(part.checkpoints) or None,
            "uploads": [{"name": name, "size_bytes": size} for name, size in part.uploads] or None,
            "pieces": [_piece(piece) for piece in part.pieces],
        }
    )


def _piece(piece: Piece) -> dict[str, Any]:
    return _present(
        {
            "name": piece.name,
            "wake": piece.wake or None,
            "start_s": piece.start_ms / 1000,
            "end_s": piece.end_ms / 1000,
            "first_step": piece.first_step,
            "last_step": piece.last_step,
            "steps": piece.steps,
        }
    )


def _present(fields: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None}
