"""Reads the lines of a task, and computes the results of the valid ones. Each invalid line gets its own error."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from daybreak_server.workloads.bulk import LineError
from daybreak_server.workloads.serving import RequestError

P = TypeVar("P")
R = TypeVar("R")


def text_in(value: Any, field: str) -> str:
    """The text of a line: the line itself, or the value of ``field`` if the line is an object.

    :raises LineError: if there is no such text, or if it is empty.
    """
    text = value.get(field) if isinstance(value, dict) else value
    if isinstance(text, str):
        if not text:
            raise LineError("The text is empty.", code="empty_input")
        return text
    if not isinstance(value, dict):
        message = f"The line must be a text, or an object with the text `{field}`."
    elif field in value:
        message = f"`{field}` must be a text."
    else:
        message = f"The object has no `{field}`."
    raise LineError(message, code="invalid_input")


def computed(
    values: Sequence[Any], read: Callable[[Any], P], compute: Callable[[Sequence[P]], Sequence[R]]
) -> list[R | LineError]:
    """The result of each value, or its error, in the order of the values.

    :param read: Makes an input of the model from a value. If it raises a ``LineError`` or a ``RequestError``, the
        line gets this error.
    :param compute: Computes the results of the inputs, in the same order.
    """
    inputs: list[P] = []
    errors: list[LineError | None] = []
    for value in values:
        try:
            inputs.append(read(value))
            errors.append(None)
        except LineError as exc:
            errors.append(exc)
        except RequestError as exc:
            errors.append(LineError(str(exc), code=exc.code))
    results = iter(compute(inputs))
    return [next(results) if error is None else error for error in errors]
