"""Checks what a workload gives to its group: steps, snapshots, previews, files.

Workloads are third-party code, and their numbers may have types of numpy or torch. A value with an
unambiguous conversion is converted. Any other value raises an error that names the field. The error is permanent,
because the same input would produce the same value again. (If a snapshot is wrong, the group only logs the error,
and continues without the snapshot.) The values that these functions return are plain, finite and storable.
"""

from __future__ import annotations

import math
import operator
import os
from pathlib import Path
from typing import Any, NoReturn

from daybreak_server.domain.artifact_names import is_content_type
from daybreak_server.domain.text import short_name, storable
from daybreak_server.workloads.base import PermanentError, Step

_WHOLE_MAX = 2**53 - 1
"""The largest whole number that JSON readers of every language can hold."""


def checked_step(step: Any) -> Step:
    """Return the step with plain values. :raises PermanentError: ``invalid_step``, naming the field."""
    if not isinstance(step, Step):
        _refuse("step", f"run must yield a Step, not {_shown(step)}")
    if not isinstance(step.phase, str):
        _refuse("step", f"Step.phase must be text, not {_shown(step.phase)}")
    if step.snapshot is not None and not callable(step.snapshot):
        _refuse("step", f"Step.snapshot must be a function that returns bytes, not {_shown(step.snapshot)}")
    return Step(
        phase=short_name(step.phase),
        fraction=_number("step", "Step.fraction", step.fraction),
        step=_whole("step", "Step.step", step.step),
        steps=_whole("step", "Step.steps", step.steps),
        snapshot=step.snapshot,
    )


def checked_snapshot(data: Any) -> bytes:
    """Return a snapshot as bytes. :raises PermanentError: ``invalid_snapshot``."""
    return _bytes("snapshot", "a snapshot", data)


def checked_resume(step: Any) -> int:
    """Return the step after which the work resumes. :raises PermanentError: ``invalid_step``."""
    return _whole("step", "the step of resumed_from", step)


def checked_preview(image: Any, step: Any, content_type: Any) -> tuple[bytes, int, str]:
    """Return a preview with plain values. :raises PermanentError: ``invalid_preview``, naming the field."""
    return (
        _bytes("preview", "a preview's image", image),
        _whole("preview", "a preview's step", step),
        _content_type("preview", content_type),
    )


def checked_file(path: Any, name: Any, content_type: Any) -> tuple[Path, str | None, str]:
    """Return an artifact's path, name and type. :raises PermanentError: ``invalid_artifact``, naming the field."""
    try:
        text = os.fspath(path)
    except TypeError:
        _refuse("artifact", f"an artifact's path must be a path, not {_shown(path)}")
    text = os.fsdecode(text)
    if "\0" in text:
        _refuse("artifact", f"an artifact's path must not hold NUL: {_shown(text)}")
    if name is not None and not isinstance(name, str):
        _refuse("artifact", f"an artifact's name must be text, not {_shown(name)}")
    return Path(text), name, _content_type("artifact", content_type)


def _number(what: str, field: str, value: Any) -> float:
    number = math.nan
    if not isinstance(value, bool | str | bytes | bytearray):
        try:
            number = float(value)
        except Exception as exc:
            _refuse(what, f"{field} must be a number, not {_shown(value)}", exc)
    if not math.isfinite(number):
        _refuse(what, f"{field} must be a finite number, not {_shown(value)}")
    return number


def _whole(what: str, field: str, value: Any) -> int:
    number: int | None = None
    if not isinstance(value, bool):
        try:
            number = operator.index(value)
        except Exception:
            real = _number(what, field, value)
            number = int(real) if real.is_integer() else None
    if number is None or not 0 <= number <= _WHOLE_MAX:
        _refuse(what, f"{field} must be a whole number from 0 to 2^53 - 1, not {_shown(value)}")
    return number


def _bytes(what: str, field: str, value: Any) -> bytes:
    if not isinstance(value, bytes | bytearray | memoryview):
        _refuse(what, f"{field} must be bytes, not {_shown(value)}")
    return bytes(value)


def _content_type(what: str, value: Any) -> str:
    if not isinstance(value, str) or not is_content_type(value):
        _refuse(what, f"{_shown(value)} is not a content type; write one such as 'video/mp4'")
    return str.__str__(value)


def _shown(value: Any) -> str:
    try:
        text: object = repr(value)
    except BaseException:
        text = "a value that cannot be shown"
    return f"{storable(text, chars=100)} ({type(value).__name__})"


def _refuse(what: str, message: str, cause: BaseException | None = None) -> NoReturn:
    raise PermanentError(message, code=f"invalid_{what}") from cause
