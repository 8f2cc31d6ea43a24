"""The fields of a request for a recording's text."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from daybreak_server.api.errors import invalid_field
from daybreak_server.api.http.multipart import FormField
from daybreak_server.api.sessions.audio.files import Recording, read_recording
from daybreak_server.api.sessions.audio.formats import AudioFormat

FORMATS = ("json", "text", "verbose_json", "srt", "vtt")
_IGNORED = ("prompt", "temperature", "chunking_strategy", "timestamp_granularities[]", "include[]")
_KNOWN = (
    *("file", "model", "language", "target_language", "response_format", "stream", "sample_rate"),
    *_IGNORED,
)
_FLAGS = {"true": True, "1": True, "false": False, "0": False}


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordingRequest:
    """A recording, its language, and the language and the format of the text that the client wants."""

    recording: Recording
    language: str | None
    target: str | None
    response_format: str
    stream: bool


def parse(fields: Mapping[str, FormField], *, translates: bool) -> RecordingRequest:
    """Return the request that the fields describe.

    :param translates: whether the default target is English. Otherwise it is the recording's own language.
    :raises ApiError: ``invalid_input`` and others.
    """
    unknown = [
        name for name in fields if name.removesuffix("[]") not in {n.removesuffix("[]") for n in _KNOWN}
    ]
    if unknown:
        raise invalid_field(unknown[0][:60], f"There is no field {unknown[0][:60]!r}.")
    file = fields.get("file")
    if file is None or file.filename is None:
        raise invalid_field("file", "The field file must be a file, such as a WAV file.")
    response_format = _text(fields, "response_format") or "json"
    if response_format not in FORMATS:
        raise invalid_field(
            "response_format", f"{response_format[:40]!r} is not supported. Use one of: {', '.join(FORMATS)}."
        )
    flag = (_text(fields, "stream") or "false").lower()
    if flag not in _FLAGS:
        raise invalid_field("stream", "The field stream must be true or false.")
    language = _text(fields, "language")
    form = AudioFormat.parse(None, _text(fields, "sample_rate"))
    return RecordingRequest(
        recording=read_recording(file.content, name=file.filename, rate=form.rate),
        language=language,
        target=_text(fields, "target_language") or ("en" if translates else language),
        response_format=response_format,
        stream=_FLAGS[flag],
    )


def _text(fields: Mapping[str, FormField], name: str) -> str | None:
    part = fields.get(name)
    return part.content.decode("utf-8", "replace").strip() or None if part is not None else None
