"""Maps a rank's errors to causes, by type and phase or by error code. The message of an error never matters."""

from __future__ import annotations

from daybreak_server.domain.causes import Cause, Reason
from daybreak_server.domain.tasks import Failed
from daybreak_server.domain.text import storable
from daybreak_server.ports.blobs import BlobError, BlobNotFoundError
from daybreak_server.workloads.base import ModelMissingError

OUT_OF_MEMORY_CODE = "out_of_memory"
"""The error code of a task that failed because a rank had no memory left."""
_BY_CODE = {OUT_OF_MEMORY_CODE: Reason.OUT_OF_MEMORY, "model_missing": Reason.MODEL_MISSING}
_NO_MEMORY = frozenset({"MemoryError", "OutOfMemoryError"})  # by name, so that torch need not be imported


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether the error means that a rank or its device had no memory left."""
    return any(base.__name__ in _NO_MEMORY for base in type(error).__mro__)


def describe(error: BaseException) -> str:
    """Return an error's class and message as storable text."""
    name, text = type(error).__name__, storable(error)
    if isinstance(error, SystemExit | KeyboardInterrupt | GeneratorExit):
        text = f"{text} (raised by the workload: a library may have tried to end the process)".strip()
    return storable(f"{name}: {text}" if text else name)


def cause_of(error: BaseException, *, phase: str = "") -> Cause:
    """Return why a rank cannot continue. ``phase``: the wake phase in which the error was raised, if any."""
    missing = ModelMissingError | FileNotFoundError | NotADirectoryError
    if is_out_of_memory(error):
        reason = Reason.OUT_OF_MEMORY
    elif phase == "model" and isinstance(error, missing):
        reason = Reason.MODEL_MISSING
    else:
        reason = Reason.RANKS_FAIL
    return Cause(reason=reason, message=describe(error))


def cause_of_fetch(error: BlobError) -> Cause:
    """Return why a model cannot be downloaded now."""
    missing = isinstance(error, BlobNotFoundError)
    return Cause(reason=Reason.MODEL_MISSING if missing else Reason.MODEL_UNAVAILABLE, message=str(error))


def cause_of_failed(failed: Failed) -> Cause:
    """Return the cause that broke a group while it ran a task."""
    return Cause(reason=_BY_CODE.get(failed.code, Reason.RANKS_FAIL), message=failed.message)


def code_of_lost(reason: str) -> str:
    """Return the error code for the loss of a rank that had reported this reason.

    :func:`cause_of_failed` maps the code back to the reason.
    """
    return next((code for code, known in _BY_CODE.items() if known == reason), "rank_lost")
