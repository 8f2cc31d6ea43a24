"""The W3C Trace Context of a task or session. The store keeps it with the record and never interprets it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

TRACESTATE_MAX = 512
"""Daybreak keeps at most this many characters of a ``tracestate``. The standard recommends at least 512."""
_MEMBERS_MAX, _LONG_MEMBER = 32, 128
_TRACEPARENT = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
_MEMBER = re.compile(r"([a-z0-9][a-z0-9_\-*/@]{0,255})=[\x20-\x2b\x2d-\x3c\x3e-\x7e]{1,256}")


@dataclass(frozen=True, slots=True, kw_only=True)
class TraceContext:
    """``traceparent`` names the trace and the parent span; ``tracestate`` holds vendor data and may be empty."""

    traceparent: str
    tracestate: str = ""

    @property
    def trace_id(self) -> str:
        """The trace: 32 hexadecimal digits."""
        return self.traceparent.split("-")[1]

    @property
    def sampled(self) -> bool:
        """Whether the trace is recorded."""
        return bool(int(self.traceparent[-2:], 16) & 1)

    @classmethod
    def parse(cls, traceparent: Sequence[str], tracestate: Sequence[str] = ()) -> TraceContext | None:
        """Parse the values of the two headers. As the standard requires, malformed values are ignored: without a
        valid ``traceparent`` there is no context, and an invalid ``tracestate`` is dropped."""
        match = _TRACEPARENT.fullmatch(traceparent[0].strip()) if len(traceparent) == 1 else None
        if match is None:
            return None
        version, trace, parent, flags, rest = match.groups()
        if version == "ff" or (version == "00" and rest) or not int(trace, 16) or not int(parent, 16):
            return None
        if version != "00":  # a later version: pass on only the flag that version 00 defines
            flags = f"{int(flags, 16) & 1:02x}"
        return cls(traceparent=f"00-{trace}-{parent}-{flags}", tracestate=_bounded(",".join(tracestate)))


def _bounded(tracestate: str) -> str:
    """The members of ``tracestate`` that fit into :data:`TRACESTATE_MAX` characters. If not all fit, long members are
    dropped first, then the last ones. The result is empty if a member is invalid, if two members have the same key, or
    if there are too many members."""
    members = [member.strip(" \t") for member in tracestate.split(",") if member.strip(" \t")]
    keys = list(_keys(members))
    if len(keys) != len(members) or len(set(keys)) != len(keys) or len(keys) > _MEMBERS_MAX:
        return ""
    if len(",".join(members)) > TRACESTATE_MAX:
        members = [member for member in members if len(member) <= _LONG_MEMBER]
    while len(",".join(members)) > TRACESTATE_MAX:
        members.pop()
    return ",".join(members)


def _keys(members: Sequence[str]) -> Iterator[str]:
    for member in members:
        match = _MEMBER.fullmatch(member)
        if match is not None:
            yield match.group(1)
