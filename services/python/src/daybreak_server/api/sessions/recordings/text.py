"""The text of a recording in the formats of OpenAI's audio API."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from starlette.responses import PlainTextResponse, Response

from daybreak_server.api.http.responses import json_response


@dataclass(frozen=True, slots=True)
class RecordingSegment:
    """A sentence of a recording."""

    start_ms: int
    end_ms: int
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordingText:
    """The whole text of a recording."""

    text: str
    segments: Sequence[RecordingSegment]
    language: str
    duration_s: float
    translated: bool

    def response(self, response_format: str) -> Response:
        """The response in the format that the client wants."""
        match response_format:
            case "text":
                return PlainTextResponse(self.text + "\n")
            case "srt":
                return PlainTextResponse(
                    self._subtitles(",", numbered=True), media_type="application/x-subrip"
                )
            case "vtt":
                return PlainTextResponse(
                    "WEBVTT\n\n" + self._subtitles(".", numbered=False), media_type="text/vtt"
                )
            case _:
                verbose = self._verbose() if response_format == "verbose_json" else {}
                return json_response({**verbose, "text": self.text, "usage": self.usage()})

    def usage(self) -> dict[str, Any]:
        """The field ``usage`` of OpenAI's API: the duration of the recording."""
        return {"type": "duration", "seconds": round(self.duration_s, 3)}

    def _verbose(self) -> dict[str, Any]:
        segments = [
            {"id": number, "start": s.start_ms / 1000, "end": s.end_ms / 1000, "text": s.text}
            for number, s in enumerate(self.segments)
        ]
        return {
            "task": "translate" if self.translated else "transcribe",
            "language": self.language,
            "duration": round(self.duration_s, 3),
            "segments": segments,
        }

    def _subtitles(self, point: str, *, numbered: bool) -> str:
        blocks = []
        for number, s in enumerate(self.segments, 1):
            head = f"{number}\n" if numbered else ""
            blocks.append(
                f"{head}{_time(s.start_ms, point)} --> {_time(s.end_ms, point)}\n{s.text.strip()}\n"
            )
        return "\n".join(blocks)


def _time(ms: int, point: str) -> str:
    seconds, rest = divmod(ms, 1000)
    return f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}{point}{rest:03}"
