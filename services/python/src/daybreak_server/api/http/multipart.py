"""Reads a form of the type ``multipart/form-data`` whose body is in memory."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from daybreak.wire import ErrorCode
from daybreak_server.api.errors import ApiError, invalid_field

MAX_FIELDS = 100
_BOUNDARY = re.compile(r'boundary=(?:"([^"]{1,200})"|([^;\s]{1,200}))', re.IGNORECASE)
_PARAMETER = re.compile(rb'\b(name|filename)="((?:[^"\\]|\\.)*)"', re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class FormField:
    """A field of a form. ``filename`` is ``None`` if the field is not a file."""

    content: bytes
    filename: str | None = None


def read_form(body: bytes, content_type: str) -> Mapping[str, FormField]:
    """The fields of a form by name. If several fields have the same name, the last one counts.

    :raises ApiError: ``unsupported_media_type`` or ``invalid_input``
    """
    found = _BOUNDARY.search(content_type)
    if not content_type.lower().startswith("multipart/form-data") or found is None:
        raise ApiError(
            ErrorCode.UNSUPPORTED_MEDIA_TYPE,
            "The body is not a form, or its Content-Type names no boundary. Send multipart/form-data with a boundary, "
            "as OpenAI's clients do.",
        )
    delimiter = b"\r\n--" + (found[1] or found[2]).encode("latin-1", "replace")
    # Each delimiter begins with a line break. Only a delimiter at the start of the body may lack it, so add one there.
    around = 2  # the pieces before the first delimiter and after the last one
    pieces = (b"\r\n" + body).split(delimiter, MAX_FIELDS + around)
    if len(pieces) > MAX_FIELDS + around:
        raise invalid_field("body", f"The form has more than {MAX_FIELDS} fields.")
    if len(pieces) < 2 or not pieces[-1].startswith(b"--"):
        raise invalid_field("body", "The form is cut off: its last boundary is missing.")
    return dict(_part(piece) for piece in pieces[1:-1])


def _part(piece: bytes) -> tuple[str, FormField]:
    head, separator, content = piece.partition(b"\r\n\r\n")
    parameters = {
        name.lower(): re.sub(rb"\\(.)", rb"\1", value).decode("utf-8", "replace")
        for name, value in _PARAMETER.findall(head)
    }
    name = parameters.get(b"name")
    if not separator or name is None:
        raise invalid_field("body", "A field of the form has no name.")
    return name, FormField(content, parameters.get(b"filename"))
