"""Sets up the log of a process: one line for each event, on standard error.

Callers use the standard library's ``logging``; only ``observability/log_lines.py`` imports structlog. Loggers of other
libraries go through the same handlers. The libraries in ``_LIBRARIES`` log requests and reconnects at level info.
So unless ``log.level`` is ``debug``, only the warnings and errors of these libraries are shown.

The first line that goes through ``logging`` imports structlog, which takes a tenth of a second. Lines about tasks are
written without ``logging`` where that is possible, so a process that writes no other lines need not import structlog.
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

from daybreak_server.domain.private_inputs import PrivateInput
from daybreak_server.observability.container_log import CONTAINER_STDERR, LINE_BYTES, ContainerHandler
from daybreak_server.observability.line_writer import LineHandler, LineWriter
from daybreak_server.observability.log_lines import (
    LazyFormatter,
    json_formatter,
    json_line,
    shortened,
    submit_lines,
    text_formatter,
    text_line,
    timestamp,
)
from daybreak_server.observability.redaction import Redactor
from daybreak_server.observability.task_log import TASKS, write_lines_with
from daybreak_server.settings.tree import LogSettings, colours_wanted, in_pod

_LIBRARIES = ("aiohttp", "asyncio", "boto3", "botocore", "httpx", "kopf", "ray", "urllib3", "uvicorn")

Write = Callable[[bytes], object]


def log_to_stderr(log: LogSettings | None = None) -> None:
    """Log to standard error from now on, in place of what was configured before."""
    log = log or LogSettings()
    writer = _line_writer(log, sys.stderr)
    _install(log, [_stderr_handler(log, sys.stderr, writer)])
    _write_task_lines(log, sys.stderr, writer, [])


def log_from_ray_worker(log: LogSettings, *, container: Path = CONTAINER_STDERR) -> None:
    """Do what :func:`log_to_stderr` does, in a process that Ray has started. There, standard error is a file.
    If ``log.container`` allows it, each line also goes to the container's standard error.

    Serve replaces ``sys.stderr`` by a stream that logs what it receives. So this function uses the original stream.
    """
    stderr = sys.__stderr__ or sys.stderr
    writer = _line_writer(log, stderr)
    handlers: list[logging.Handler] = [_stderr_handler(log, stderr, writer)]
    writes: list[tuple[Callable[[Mapping[str, Any]], bytes], Write]] = []
    problem: OSError | None = None
    if log.container == "always" or (log.container == "auto" and in_pod()):
        try:
            handler = ContainerHandler(container)
        except OSError as exc:
            problem = exc
        else:
            handler.setFormatter(
                LazyFormatter(lambda: json_formatter(_redactor(log), max_bytes=LINE_BYTES - 1))
            )
            handlers.append(handler)
            writes.append((_short_json_line, handler.write))
    _install(log, handlers)
    _write_task_lines(log, stderr, writer, writes)
    if problem is not None:
        logging.getLogger(__name__).warning(
            "the log of this process is only in Ray's files, because the container's standard error cannot be "
            "opened: %s",
            problem,
        )


def _install(log: LogSettings, handlers: Sequence[logging.Handler]) -> None:
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
    """Send a library's lines to the root's handlers instead of its own. Handlers that write to files stay."""
    for handler in logger.handlers[:]:
        if isinstance(handler, logging.StreamHandler) and not isinstance(handler, logging.FileHandler):
            logger.removeHandler(handler)
    logger.propagate = True


def _is_ours_or_warning(record: logging.LogRecord) -> bool:
    return record.levelno >= logging.WARNING or record.name.partition(".")[0] not in _LIBRARIES


def _line_writer(log: LogSettings, stream: TextIO) -> LineWriter:
    encode = json_line if _wants_json(log, stream) else text_line

    def lost(lines: int) -> bytes:
        message = f"{lines} lines of the log were lost, because nobody read it"
        level, logger = "warning", __name__
        line = {"timestamp": timestamp(time.time()), "level": level, "logger": logger, "message": message}
        return encode(line)

    return LineWriter(stream.fileno(), lost=lost, make=submit_lines)


def _stderr_handler(log: LogSettings, stream: TextIO, writer: LineWriter) -> logging.Handler:
    handler = LineHandler(writer)
    if _wants_json(log, stream):
        handler.setFormatter(LazyFormatter(lambda: json_formatter(_redactor(log))))
    else:
        colours = _wants_colours(stream)
        handler.setFormatter(LazyFormatter(lambda: text_formatter(_redactor(log), colours=colours)))
    return handler


def _wants_json(log: LogSettings, stream: TextIO) -> bool:
    return log.format == "json" or (log.format == "auto" and not stream.isatty() and in_pod())


def _wants_colours(stream: TextIO) -> bool:
    return stream.isatty() and colours_wanted()


def _redactor(log: LogSettings) -> Redactor:
    return Redactor(_no_inputs) if log.inputs else Redactor()


def _no_inputs() -> tuple[PrivateInput, ...]:
    return ()


# ── the lines about tasks, without the detour through the standard library ────────────────────────────────


def _write_task_lines(
    log: LogSettings,
    stream: TextIO,
    writer: LineWriter,
    writes: Sequence[tuple[Callable[[Mapping[str, Any]], bytes], Write]],
) -> None:
    as_json = _wants_json(log, stream)
    if not as_json and _wants_colours(stream):
        write_lines_with(None)
        return
    redact = _redactor(log)
    targets: list[tuple[Callable[[Mapping[str, Any]], bytes], Write]] = [
        (json_line if as_json else text_line, writer),
        *writes,
    ]

    def write(is_warning: bool, fields: dict[str, object]) -> None:
        level = "warning" if is_warning else "info"
        line = {"timestamp": timestamp(time.time()), "level": level, "logger": TASKS, **fields}
        if "error" in line:
            line["error"] = redact(str(line["error"]), task=line.get("task", ""))
        for encode, write_line in targets:
            write_line(encode(line))

    is_fast = as_json and not writes and log.level in ("debug", "info")
    write_lines_with(write, submits=writer.later if is_fast else None)


def _short_json_line(line: Mapping[str, Any]) -> bytes:
    return shortened(line, json_line(line), LINE_BYTES - 1)
