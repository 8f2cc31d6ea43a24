"""Reads the fields of requests. If a field is wrong, the request is refused, and the error names the field.

This module uses no pydantic model, because a request may have a hundred thousand token ids.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NoReturn

from daybreak_server.workloads.serving import Request, RequestError

CUT_HEADER = "daybreak-cut"
"""The header that lists the numbers of the texts that were cut, counting from 0. It lists at most 500."""


def wrong(field: str, message: str, *, code: str = "invalid_input") -> NoReturn:
    """Refuse a request. ``message`` begins with what is wrong. :raises RequestError: 422."""
    raise RequestError(422, message, code=code, field=field)


def body_of(request: Request) -> dict[str, Any]:
    """The body, which must be a JSON object. :raises RequestError: if it is not."""
    body = request.json()
    if not isinstance(body, dict):
        wrong("body", "The body must be a JSON object.")
    if not isinstance(body.get("model"), str | None):  # the gateway ignores a model that is not a string
        wrong("model", "model must be a text.")
    return body


def text_of(body: Mapping[str, Any], field: str) -> str:
    """A text that is not empty. :raises RequestError: if the field has none."""
    value = body.get(field)
    if not isinstance(value, str):
        wrong(field, f"{field} must be a text." if field in body else f"{field} is missing. Send a text.")
    if not value:
        wrong(field, f"{field} is empty. Send a text.", code="empty_input")
    return value


def texts_of(value: Any, field: str, *, max_texts: int) -> list[str]:
    """Texts, none of which is empty. :raises RequestError: if the value is anything else."""
    if not isinstance(value, list):
        wrong(field, f"{field} must be a list of texts.")
    check_count(len(value), field, max_texts=max_texts)
    for number, text in enumerate(value):
        if not isinstance(text, str):
            wrong(f"{field}.{number}", f"{field}.{number} must be a text, as the others.")
        if not text:
            wrong(f"{field}.{number}", f"{field}.{number} is empty. Leave it out.", code="empty_input")
    return value


def check_count(count: int, field: str, *, max_texts: int) -> None:
    """Check a number of texts. :raises RequestError: if it is 0, or more than ``max_texts``."""
    if not count:
        wrong(field, f"{field} is empty. Send at least one text.", code="empty_input")
    if count > max_texts:
        wrong(
            field,
            f"{field} has {count} texts; at most {max_texts} are allowed. Send several requests.",
            code="too_many",
        )


def flag_of(body: Mapping[str, Any], field: str, *, default: bool) -> bool:
    """A field that is true or false; ``default`` if it is absent. :raises RequestError: if it is anything else."""
    value = body.get(field)
    if value is None:
        return default
    if not isinstance(value, bool):
        wrong(field, f"{field} must be true or false.")
    return value


def number_of(body: Mapping[str, Any], field: str) -> int | None:
    """A whole number above 0, or ``None`` if the field is absent. :raises RequestError: if it is anything else."""
    value = body.get(field)
    if value is None:
        return None
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        wrong(field, f"{field} must be a whole number of at least 1.")
    return value


def choice_of(body: Mapping[str, Any], field: str, choices: Mapping[str, Any], *, default: str) -> Any:
    """The value of the choice that a field names. :raises RequestError: if the field names none of the choices."""
    value = body.get(field)
    value = default if value is None else value
    if not isinstance(value, str) or value not in choices:
        wrong(field, f"{field} must be one of: {', '.join(choices)}.")
    return choices[value]
