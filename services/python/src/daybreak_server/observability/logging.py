"""The log of every process: one line for each event, as JSON for a collector or as text for people.

Callers use the standard library's ``logging``, so structlog is imported here only. A line has these fields, of which
those that do not apply are left out:

- ``timestamp`` (UTC), ``level``, ``logger``, ``message``, and ``exception``, the traceback;
- the fields that are bound where the line is logged (``domain/log_context.py``): ``task``, ``attempt``, ``pool``,
  ``group``, ``rank``, ``trace_id``, ``request_id``;
- those that the caller passes as ``extra``. The names are in :data:`FIELDS`.

Loggers of other libraries go through the same renderer. They log requests and reconnects at level info, so below
``log.level: debug`` only their warnings are shown.

Ray redirects the standard error of the processes that it starts to files, which ``kubectl logs`` does not show. On
Kubernetes, these processes also write each line to the standard error of their container, which is that of its first
process (:class:`ContainerHandler`).

The first line of a process imports structlog, which takes a tenth of a second; processes that log nothing do not wait.
"""

from __future__ import annotations

import json
import logging
import os
import select
import sys
from collections.abc import Callable, MutableMapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

from pydantic_core import PydanticSerializationError, to_json

from daybreak_server.domain import log_context
from daybreak_server.observability.redaction import Redactor
from daybreak_server.observability.task_log import TASKS
from daybreak_server.settings.tree import LogSettings, colours_wanted, in_pod

FIELDS = (
    *("change", "task", "attempt", "pool", "group", "rank", "tenant", "trace_id", "request_id"),
    *("reason", "error", "strikes", "delay_s", "input"),
)
"""The fields that a line may have beside the standard ones, in their order."""
CONTAINER_STDERR = Path("/proc/1/fd/2")
"""The standard error of the first process of a container, which is that of the container."""
LINE_BYTES = select.PIPE_BUF
"""The longest line that is written to a container's standard error: the kernel never mixes it with other lines."""
_LIBRARIES = ("aiohttp", "asyncio", "boto3", "botocore", "httpx", "kopf", "ray", "urllib3", "uvicorn")
_OF_THE_PROCESS = ("pool", "rank", "request_id")
_SHORTENED_CHARS = (2000, 800, 300, 80)

_Event = MutableMapping[str, Any]


class _Formatter(Protocol):
    def format(self, record: logging.LogRecord) -> str: ...


def log_to_stderr(log: LogSettings | None = None) -> None:
    """Log to stderr from now on, in place of what was configured before."""
    _install(log or LogSettings(), _stderr_handler(log or LogSettings()))


def log_from_ray_worker(log: LogSettings, *, container: Path = CONTAINER_STDERR) -> None:
    """The same in a process that Ray started: its stderr is a file. Where ``log.container`` says so, each line goes to
    the container's standard error too."""
    handlers: list[logging.Handler] = [_stderr_handler(log)]
    problem: OSError | None = None
    if log.container == "always" or (log.container == "auto" and in_pod()):
        try:
            handlers.append(ContainerHandler(container))
        except OSError as exc:
            problem = exc
        else:
            handlers[-1].setFormatter(_LazyFormatter(lambda: _json_formatter(log, max_bytes=LINE_BYTES - 1)))
    _install(log, *handlers)
    if problem is not None:
        logging.getLogger(__name__).warning(
            "the log of this process is only in Ray's files, because the container's standard error cannot be "
            "opened: %s",
            problem,
        )


class ContainerHandler(logging.Handler):
    """Writes lines to the standard error of this process's container.

    It never waits: if the container runtime reads too slowly, lines are dropped, and the next line says how many.

    :raises OSError: if it cannot be opened.
    """

    def __init__(self, path: Path = CONTAINER_STDERR) -> None:
        self._fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
        self._dropped = 0
        super().__init__()

    def emit(self, record: logging.LogRecord) -> None:
        """Write the record's line, or count it as dropped."""
        try:
            line = self.format(record)
        except Exception:
            self.handleError(record)
            return
        if self._dropped:
            note = {"level": "warning", "logger": __name__, "message": f"{self._dropped} lines were dropped"}
            if not self._write(json.dumps(note)):
                self._dropped += 1
                return
            self._dropped = 0
        if not self._write(line):
            self._dropped += 1

    def close(self) -> None:
        """Close the descriptor."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
        super().close()

    def _write(self, line: str) -> bool:
        try:
            os.write(self._fd, line.encode("utf-8", "backslashreplace") + b"\n")
        except OSError:  # the pipe is full, or its reader is gone
            return False
        return True


def _install(log: LogSettings, *handlers: logging.Handler) -> None:
    root = logging.getLogger()
    for handler in root.handlers[:]:
        root.removeHandler(handler)
        handler.close()
    for handler in handlers:
        if log.level != "debug":
            handler.addFilter(_is_ours_or_warning)
        root.addHandler(handler)
    root.setLevel(log.level.upper())
    for name, logger in list(root.manager.loggerDict.items()):
        if isinstance(logger, logging.Logger) and name.partition(".")[0] in _LIBRARIES:
            _adopt(logger)


def _adopt(logger: logging.Logger) -> None:
    """Send a library's lines to the root's handlers instead of its own. Files that it writes stay."""
    for handler in logger.handlers[:]:
        if isinstance(handler, logging.StreamHandler) and not isinstance(handler, logging.FileHandler):
            logger.removeHandler(handler)
    logger.propagate = True


def _is_ours_or_warning(record: logging.LogRecord) -> bool:
    return record.levelno >= logging.WARNING or record.name.partition(".")[0] not in _LIBRARIES


def _stderr_handler(log: LogSettings) -> logging.Handler:
    handler = logging.StreamHandler(sys.stderr)
    terminal = sys.stderr.isatty()
    if log.format == "json" or (log.format == "auto" and not terminal and in_pod()):
        handler.setFormatter(_LazyFormatter(lambda: _json_formatter(log)))
    else:
        colours = terminal and colours_wanted()
        handler.setFormatter(_LazyFormatter(lambda: _text_formatter(log, colours=colours)))
    return handler


class _LazyFormatter(logging.Formatter):
    """A formatter that is built when the first line is logged."""

    def __init__(self, build: Callable[[], _Formatter]) -> None:
        super().__init__()
        self._build = build
        self._built: _Formatter | None = None

    def format(self, record: logging.LogRecord) -> str:
        if self._built is None:
            self._built = self._build()
        return self._built.format(record)


def _json_formatter(log: LogSettings, *, max_bytes: int | None = None) -> _Formatter:
    def render(_logger: object, _method: str, event: _Event) -> str:
        line = _json_line(event)
        for chars in _SHORTENED_CHARS if max_bytes is not None else ():
            if len(line.encode("utf-8", "replace")) <= (max_bytes or 0):
                break
            line = _json_line({name: _shortened(value, chars) for name, value in event.items()})
        return line

    return _formatter(log, render)


def _text_formatter(log: LogSettings, *, colours: bool) -> _Formatter:
    from structlog import dev

    console = dev.ConsoleRenderer(
        colors=colours,
        event_key="message",
        pad_event_to=0,
        sort_keys=False,
        exception_formatter=dev.plain_traceback,
    )
    return _formatter(log, console)


def _formatter(log: LogSettings, render: Callable[..., str]) -> _Formatter:
    from structlog import stdlib

    return stdlib.ProcessorFormatter(
        foreign_pre_chain=[_Assemble(Redactor(_no_inputs) if log.inputs else Redactor())],
        processors=[stdlib.ProcessorFormatter.remove_processors_meta, render],
    )


class _Assemble:
    """Makes the line's fields from a record of the standard library."""

    def __init__(self, redact: Redactor) -> None:
        self._redact = redact

    def __call__(self, _logger: object, _method: str, event: _Event) -> _Event:
        record: logging.LogRecord = event["_record"]
        line: _Event = {
            "timestamp": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")[:-6]
            + "Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": event["event"],
        }
        if record.name != TASKS:
            line["message"] = self._redact(str(line["message"]))
        fields = _fields(record)
        for name in FIELDS:
            if name in fields:
                line[name] = fields[name]
        if isinstance(error := line.get("error"), str):
            line["error"] = self._redact(error)
        exc_info = event.get("exc_info")
        if exc_info and exc_info != (None, None, None):
            line["exception"] = self._redact(logging.Formatter().formatException(exc_info))
        line["_record"], line["_from_structlog"] = record, event["_from_structlog"]
        return line


def _fields(record: logging.LogRecord) -> dict[str, Any]:
    """The fields that are bound and those of the record. A line about another task has none of the bound task's."""
    context, attributes = log_context.current(), record.__dict__
    fields = {name: attributes[name] for name in FIELDS if name in attributes}
    if fields.get("task", context.get("task")) != context.get("task"):
        context = {name: value for name, value in context.items() if name in _OF_THE_PROCESS}
    return {**context, **fields}


def _no_inputs() -> tuple[object, ...]:
    return ()


def _json_line(event: _Event) -> str:
    try:
        return to_json(event, fallback=str, inf_nan_mode="null").decode()
    except PydanticSerializationError:  # half of a surrogate pair
        return json.dumps(dict(event), default=str)


def _shortened(value: Any, chars: int) -> Any:
    """A text without its middle, so that it has about ``chars`` characters."""
    if not isinstance(value, str) or len(value) <= chars:
        return value
    return f"{value[: chars // 3]} … [shortened] … {value[-(chars - chars // 3) :]}"
