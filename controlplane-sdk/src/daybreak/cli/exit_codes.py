"""The exit codes, and the one-line error that says what happened and what to do next."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from enum import IntEnum

import typer

from daybreak.cli.output import Output, abandon_streams
from daybreak.errors import (
    ApiError,
    ArgumentError,
    ArtifactNotFoundError,
    AuthError,
    BadRequestError,
    ConfigError,
    ConflictError,
    DaybreakError,
    DownloadError,
    InvalidInputError,
    NotFoundError,
    ProtocolError,
    TransportError,
    UnreachableError,
)
from daybreak.wire import TaskState


class Exit(IntEnum):
    """The exit codes of ``daybreak``."""

    OK = 0
    TASK_FAILED = 1
    USAGE = 2
    NOT_FOUND = 3
    UNREACHABLE = 4
    UNAVAILABLE = 5
    KEY = 6
    CONFLICT = 7
    TASK_CANCELLED = 8
    TASK_EXPIRED = 9
    FILE = 10
    INTERRUPTED = 130
    PIPE = 141


MEANING = {
    Exit.OK: "success; if the command waits for a task: the task succeeded",
    Exit.TASK_FAILED: "the task or the session failed, or the model cannot start",
    Exit.USAGE: "wrong usage, or input that the server rejects",
    Exit.NOT_FOUND: "no such task, pool, model or artifact",
    Exit.UNREACHABLE: "the server cannot be reached, or the connection broke",
    Exit.UNAVAILABLE: "the server cannot accept the request now, a limit is reached, or the server has a bug",
    Exit.KEY: "the API key is missing or wrong, or does not allow the request",
    Exit.CONFLICT: "the object's state does not allow the request, or its name is taken",
    Exit.TASK_CANCELLED: "the task was cancelled",
    Exit.TASK_EXPIRED: "the task expired",
    Exit.FILE: "a file could not be written or read, or arrived damaged",
    Exit.INTERRUPTED: "interrupted (Ctrl-C)",
    Exit.PIPE: "the program that reads the output, for example `head`, has closed it",
}

EXIT_OF_STATE = {
    TaskState.SUCCEEDED: Exit.OK,
    TaskState.FAILED: Exit.TASK_FAILED,
    TaskState.CANCELLED: Exit.TASK_CANCELLED,
    TaskState.EXPIRED: Exit.TASK_EXPIRED,
}


class UsageError(DaybreakError):
    """An argument is wrong. The command finds this out before it sends any request."""


_CODES: tuple[tuple[type[Exception], Exit], ...] = (
    (UsageError, Exit.USAGE),
    (ArgumentError, Exit.USAGE),
    (ConfigError, Exit.USAGE),
    (InvalidInputError, Exit.USAGE),
    (BadRequestError, Exit.USAGE),
    (NotFoundError, Exit.NOT_FOUND),
    (AuthError, Exit.KEY),
    (ConflictError, Exit.CONFLICT),
    (TransportError, Exit.UNREACHABLE),
    (ProtocolError, Exit.UNREACHABLE),
    (ApiError, Exit.UNAVAILABLE),
    (ArtifactNotFoundError, Exit.NOT_FOUND),  # before its base class
    (DownloadError, Exit.FILE),
    (OSError, Exit.FILE),
)


def exit_code(error: Exception) -> Exit:
    """The exit code for an error."""
    return next((code for kind, code in _CODES if isinstance(error, kind)), Exit.UNAVAILABLE)


_HINTS: tuple[tuple[type[Exception], str | None, str], ...] = (
    (
        UnreachableError,
        None,
        "Is it running? `make up` or `daybreakd dev` starts one here; DAYBREAK_URL or --url selects another.",
    ),
    (ProtocolError, None, "Is this the address of a Daybreak server? DAYBREAK_URL or --url selects another."),
    (
        TransportError,
        None,
        "Submitted tasks continue to run: `daybreak tasks list`, then `daybreak tasks watch ID`.",
    ),
    (AuthError, None, "Set DAYBREAK_API_KEY."),
    (NotFoundError, "no_such_pool", "`daybreak pools` lists the pools."),
    (NotFoundError, "model_not_found", "`daybreak models list` lists the models."),
    (NotFoundError, "no_such_artifact", "`daybreak tasks show ID` lists the files."),
    (
        NotFoundError,
        "not_found",
        "`daybreak tasks list` lists the tasks; ended tasks are deleted after the pool's retention.",
    ),
    (ConflictError, "conflict", "`daybreak tasks show ID` shows its state."),
)


def hint(error: Exception) -> str | None:
    """What to do next: the notes that were added to the error, else the hint for its type."""
    if notes := getattr(error, "__notes__", None):
        return " ".join(notes)
    for kind, code, text in _HINTS:
        if isinstance(error, kind) and (code is None or getattr(error, "code", None) == code):
            return text
    if isinstance(error, ApiError):
        if error.retry_after_s is not None:
            return f"Retry in {error.retry_after_s:.0f} s."
        if error.status == 500:
            return f"This is a bug in the server; its log has the details under {error.request_id}."
    return None


def message(error: Exception) -> str:
    """What happened, on one line. If the input is invalid, the line names the invalid fields."""
    if isinstance(error, InvalidInputError) and error.fields:
        return "; ".join(f"{field.field}: {field.message}" for field in error.fields)
    if isinstance(error, ApiError):
        return error.problem.detail or error.problem.title
    if isinstance(error, OSError) and error.filename is not None and error.strerror:
        return f"{os.fsdecode(error.filename)}: {error.strerror}"
    return " ".join(str(error).split()) or type(error).__name__


@contextmanager
def report_errors(output: Output) -> Iterator[None]:
    """Print an error on one line of stderr, and exit with its code."""
    try:
        yield
    except BrokenPipeError as error:
        abandon_streams()
        raise typer.Exit(Exit.PIPE) from error
    except (DaybreakError, OSError) as error:
        code = error.code if isinstance(error, ApiError) else exit_code(error).name.lower()
        output.error(message(error), hint=hint(error), code=code)
        raise typer.Exit(exit_code(error)) from error
    except KeyboardInterrupt as error:
        output.error("interrupted", code="interrupted")
        raise typer.Exit(Exit.INTERRUPTED) from error


def exit_help() -> str:
    """The table of exit codes for ``--help``."""
    return "\n".join(["Exit codes:", *(f"{code.value:>5}  {meaning}" for code, meaning in MEANING.items())])
