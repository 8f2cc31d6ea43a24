"""Finds which model the body of a request names, in JSON or in a form, and replaces that name."""

from __future__ import annotations

import re

from pydantic_core import from_json, to_json

_FORM_FIELD = re.compile(
    rb'content-disposition:[^\r\n]*\bname="?model"?[ \t]*(?:;[^\r\n]*)?\r\n(?:[^\r\n]+\r\n)*\r\n([^\r\n]{1,256})\r\n',
    re.IGNORECASE,
)


def model_in(body: bytes, content_type: str, *, complete: bool) -> str | None:
    """The model that a body names; ``None`` if it names none. If not ``complete``, ``body`` is only the beginning."""
    if content_type.startswith("multipart/form-data"):
        found = _FORM_FIELD.search(body)
        return found[1].decode("utf-8", "replace").strip() if found else None
    try:
        data = from_json(body, allow_partial=not complete)
    except ValueError:
        return None
    name = data.get("model") if isinstance(data, dict) else None
    return name if isinstance(name, str) else None


def with_model(body: bytes, content_type: str, name: str) -> bytes:
    """The body with its model replaced by ``name``. ``body`` must be complete."""
    if content_type.startswith("multipart/form-data"):
        found = _FORM_FIELD.search(body)
        return body if found is None else body[: found.start(1)] + name.encode() + body[found.end(1) :]
    return to_json({**from_json(body), "model": name})
