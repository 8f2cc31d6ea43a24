"""Errors of a rank as causes. By the type of an error and by where it was raised, never by its words."""

from __future__ import annotations

from daybreak_server.domain.causes import Cause, Reason
from daybreak_server.domain.tasks import Failed
from daybreak_server.domain.text import storable
from daybreak_server.ports.blobs import BlobError, BlobNotFoundError
from daybreak_server.workloads.base import ModelMissingError

OUT_OF_MEMORY_CODE = "out_of_memory"
"""The code of a task's error where a rank had no memory left."""
_BY_CODE = {OUT_OF_MEMORY_CODE: Reason.OUT_OF_MEMORY, "model_missing": Reason.MODEL_MISSING}
_NO_MEMORY = frozenset({"MemoryError", "OutOfMemoryError"})  # by name: torch's own is not imported for this


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a rank, or its device, had no memory left."""
    return any(base.__name__ in _NO_MEMORY for base in type(error).__mro__)


def described(error: BaseException) -> str:
    """An error with its class, storable."""
    name, text = type(error).__name__, storable(error)
    if isinstance(error, SystemExit | KeyboardInterrupt | GeneratorExit):
        text = f"{text} (raised by the work: a library may have tried to end the process)".strip()
    return storable(f"{name}: {text}" if text else name)


def cause_of(error: BaseException, *, phase: str = "") -> Cause:
    """Why a rank cannot go on. ``phase``: of the wake, where the error was raised in one."""
    missing = ModelMissingError | FileNotFoundError | NotADirectoryError
    if is_out_of_memory(error):
        reason = Reason.OUT_OF_MEMORY
    elif phase == "model" and isinstance(error, missing):
        reason = Reason.MODEL_MISSING
    else:
        reason = Reason.RANKS_FAIL
    return Cause(reason=reason, message=described(error))


def cause_of_fetch(error: BlobError) -> Cause:
    """Why a model cannot be had for now."""
    missing = isinstance(error, BlobNotFoundError)
    return Cause(reason=Reason.MODEL_MISSING if missing else Reason.MODEL_UNAVAILABLE, message=str(error))


def cause_of_failed(failed: Failed) -> Cause:
    """Why a group that broke at a task did."""
    return Cause(reason=_BY_CODE.get(failed.code, Reason.RANKS_FAIL), message=failed.message)


def code_of_lost(reason: str) -> str:
    """The code of an error by which a rank was lost that had said why; :func:`cause_of_failed` reads it back."""
    return next((code for code, known in _BY_CODE.items() if known == reason), "rank_lost")
