"""Makes lines of the log: JSON for a collector, or text for people.

A line has these fields, except those that do not apply:

- ``timestamp`` (UTC), ``level``, ``logger``, ``message``;
- the fields in :data:`FIELDS`. They are bound where the line is logged (``domain/log_context.py``), or come from the
  caller's ``extra``;
- ``exception``, the traceback.

Messages, errors and tracebacks go through a :class:`~daybreak_server.observability.redaction.Redactor` first. The
messages of ``task_log`` contain nothing to redact.
"""

from __future__ import annotations

import json
import logging
import re
import time
import traceback
from collections.abc import Callable, Iterable, Mapping, MutableMapping, Sequence
from functools import lru_cache
from typing import Any, Protocol

from pydantic_core import PydanticSerializationError, to_json

from daybreak_server.domain import log_context
from daybreak_server.observability.redaction import Redactor
from daybreak_server.observability.task_log import TASKS

FIELDS = (
    "change",
    "task",
    "session",
    "attempt",
    "pool",
    "group",
    "rank",
    "tenant",
    "trace_id",
    "request_id",
    "reason",
    "error",
    "strikes",
    "delay_s",
    "latency_multiplier",
    "input",
)
"""The fields that a line may have beside the standard ones, in the usual order."""
_PLAIN = re.compile(r"[\w.:/+-]+")
"""Text that needs no quotes."""
_OURS = "daybreak"
"""The prefix of our own loggers. Their messages contain text of a task's input only if an exception quotes it."""
_SHORTENED_CHARS = (2000, 800, 300, 80)

Line = MutableMapping[str, Any]


class Formatter(Protocol):
    """The part of a formatter that a handler uses."""

    def format(self, record: logging.LogRecord) -> str:
        """The record's line."""


class LazyFormatter(logging.Formatter):
    """A formatter that is built only when the first line is logged, because building it imports structlog."""

    def __init__(self, build: Callable[[], Formatter]) -> None:
        super().__init__()
        self._build = build
        self._built: Formatter | None = None

    def format(self, record: logging.LogRecord) -> str:
        """The record's line."""
        if self._built is None:
            self._built = self._build()
        return self._built.format(record)


def json_formatter(redact: Redactor, *, max_bytes: int | None = None) -> Formatter:
    """One JSON object in each line. If a line is longer than ``max_bytes``, the middle of its long texts is cut out."""

    def render(_logger: object, _method: str, line: Line) -> str:
        encoded = json_line(line)
        if max_bytes is not None:
            encoded = shortened(line, encoded, max_bytes)
        return encoded.decode()

    return _formatter(redact, render)


def text_formatter(redact: Redactor, *, colours: bool) -> Formatter:
    """Text, with the fields at the end of the line and the traceback below it."""
    from structlog import dev

    return _formatter(
        redact,
        dev.ConsoleRenderer(
            colors=colours,
            event_key="message",
            pad_event_to=0,
            sort_keys=False,
            exception_formatter=dev.plain_traceback,
        ),
    )


def _formatter(redact: Redactor, render: Callable[..., str]) -> Formatter:
    from structlog import stdlib

    return stdlib.ProcessorFormatter(
        foreign_pre_chain=[_Assemble(redact)],
        processors=[stdlib.ProcessorFormatter.remove_processors_meta, render],
    )


class _Assemble:
    """Makes a line from a record of the standard library."""

    def __init__(self, redact: Redactor) -> None:
        self._redact = redact

    def __call__(self, _logger: object, _method: str, event: Line) -> Line:
        record: logging.LogRecord = event["_record"]
        attributes = record.__dict__
        fields = {name: attributes[name] for name in FIELDS if name in attributes}
        if record.name != TASKS:  # a line about a change already has all its fields
            bound = log_context.about(fields["task"]) if "task" in fields else log_context.current()
            fields = {**bound, **fields}
        task = fields.get("task", "")
        message = str(event["event"])
        if record.name != TASKS:
            message = self._redact(message, task="" if record.name.startswith(_OURS) else task)
        line: Line = {
            "timestamp": timestamp(record.created),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": message,
        }
        line.update({name: fields[name] for name in FIELDS if name in fields})
        if "error" in line:
            line["error"] = self._redact(str(line["error"]), task=task)
        exc_info = event.get("exc_info")
        if exc_info and exc_info != (None, None, None):
            # `logging.Formatter` would use `print`, which Ray Serve replaces by a function that garbles the text.
            text = "".join(traceback.format_exception(*exc_info)).rstrip("\n")
            line["exception"] = self._redact(text, task=task)
        line["_record"], line["_from_structlog"] = record, event["_from_structlog"]
        return line


def timestamp(at: float) -> str:
    """A time in seconds since 1970 as RFC 3339 in UTC, with milliseconds."""
    return _millisecond(int(at * 1000))


@lru_cache(maxsize=4)
def _millisecond(at: int) -> str:
    """A time as text. Cached, because a busy process writes several lines in the same millisecond."""
    return f"{_second(at // 1000)}.{at % 1000:03d}Z"


@lru_cache(maxsize=2)
def _second(at: int) -> str:
    """A second as text. Cached, because formatting it takes longer than making the rest of the line."""
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(at))


def json_line(line: Mapping[str, Any]) -> bytes:
    """The line as JSON, whatever its values are."""
    return _json(line)


def _json(value: Mapping[str, Any] | str) -> bytes:
    try:
        return to_json(value, fallback=str, inf_nan_mode="null")
    except PydanticSerializationError:  # half of a surrogate pair
        return json.dumps(value if isinstance(value, str) else dict(value), default=str).encode()


def submit_lines(submits: Sequence[tuple[float, tuple[str, ...]]]) -> bytes:
    """The JSON lines about submits, newlines included: the same as from :func:`json_line`, but made faster.

    Each entry of ``submits`` holds the time of the submit, and four texts: the task's id, the tenant, the trace id (or
    an empty text) and the request id. Ids of tasks and of traces have no character that JSON escapes.
    """
    request_ids = "".join([texts[-1] for _, texts in submits])
    are_plain = request_ids.isascii() and request_ids.encode().isalnum()  # `isalnum` of bytes is far faster
    lines: list[str] = []
    last, shown_time, tenant, shown_tenant = -1, "", "", ""
    for at, (task, owner, trace_id, request_id) in submits:
        # The submits of a batch have few different times and tenants.
        if (millisecond := int(at * 1000)) != last:
            last, shown_time = millisecond, _millisecond(millisecond)
        if owner != tenant:
            tenant, shown_tenant = owner, _escaped(owner)
        shown_id = request_id if are_plain or request_id.isalnum() else _escaped(request_id)
        trace = f',"trace_id":"{trace_id}"' if trace_id else ""
        lines.append(
            f'{{"timestamp":"{shown_time}"{_OF_SUBMITS}{task} submitted","change":"submitted",'
            f'"request_id":"{shown_id}","task":"{task}","pool":"{task[: task.rfind("_")]}",'
            f'"tenant":"{shown_tenant}"{trace}}}\n'
        )
    return "".join(lines).encode()


_OF_SUBMITS = f',"level":"info","logger":"{TASKS}","message":"task '


@lru_cache(maxsize=256)
def _escaped(text: str) -> str:
    return _json(text).decode()[1:-1]


def text_line(line: Mapping[str, Any]) -> bytes:
    """A line without an exception, as text. :func:`text_formatter` without colours makes the same text."""
    named: Iterable[tuple[str, Any]] = ((name, line[name]) for name in FIELDS if name in line)
    fields = " ".join(f"{name}={_shown(value)}" for name, value in named)
    text = f"{line['timestamp']} [{line['level']:<9}] {line['message']} [{line['logger']}] {fields}"
    return text.encode("utf-8", "backslashreplace")


def _shown(value: object) -> str:
    text = value if isinstance(value, str) else repr(value)
    return text if _PLAIN.fullmatch(text) else repr(value)


def shortened(line: Mapping[str, Any], encoded: bytes, max_bytes: int) -> bytes:
    """The encoded line. Its long texts are shortened in steps until the line has at most ``max_bytes``.

    A line with very many fields may still be longer after the last step.
    """
    for chars in _SHORTENED_CHARS:
        if len(encoded) <= max_bytes:
            break
        encoded = json_line({name: _without_middle(value, chars) for name, value in line.items()})
    return encoded


def _without_middle(value: Any, chars: int) -> Any:
    if not isinstance(value, str) or len(value) <= chars:
        return value
    return f"{value[: chars // 3]} … [shortened] … {value[-(chars - chars // 3) :]}"
