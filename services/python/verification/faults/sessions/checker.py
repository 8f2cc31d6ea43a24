"""Pure functions that decide which promises about sessions were broken. They read only the history of the clients.

* ``ends``: each session ends once, for the reason that its client expects, and no event follows its end.
* ``text``: the text is that of an undisturbed session. No audio was lost, and no word is missing or repeated.
* ``order``: the ids of events increase, and the positions of texts in the audio never fall. Attempts are numbered
  without gaps.
* ``sentences``: sentences are numbered without gaps. Together they are the text, except for an incomplete last
  sentence.
* ``audio``: each position that the server sends lies between the acknowledged position and the end of the audio that
  the client has sent.
* ``refusals``: each absurd frame is refused with the code ``invalid_audio``, and no other frame is refused. (An
  *absurd* frame has samples that no audio has, such as NaN.)
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from verification.faults.checker import Verdict
from verification.faults.checks.observations import Violation
from verification.faults.history import Line


@dataclass(slots=True)
class SessionSeen:
    """The observations of a session's client, in order."""

    begin: Line
    lines: list[Line] = field(default_factory=list)

    def of(self, op: str) -> list[Line]:
        """The lines of one operation."""
        return [line for line in self.lines if line["op"] == op]

    def events(self, *kinds: str) -> list[Line]:
        """The events of these types; without arguments, all of them."""
        return [line for line in self.of("event") if not kinds or line["type"] in kinds]

    @property
    def text(self) -> str:
        """The text of all events of type ``text``, joined."""
        return "".join(line["data"]["text"] for line in self.events("text"))

    def longest_gap(self, since: float) -> float:
        """The longest time between two consecutive pieces of text. The second must have come at ``since`` or later."""
        times = [line["t"] for line in self.events("text")]
        return max((later - earlier for earlier, later in pairwise(times) if later >= since), default=0.0)


@dataclass(slots=True)
class SessionsSeen:
    """The contents of a history."""

    sessions: dict[str, SessionSeen] = field(default_factory=dict)
    faults: list[Line] = field(default_factory=list)
    complete: bool = False
    line_counts: Counter[str] = field(default_factory=Counter)


Rule = Callable[[SessionSeen], Iterator[tuple[str, str]]]


def gather(lines: Iterable[Line]) -> SessionsSeen:
    """Sort the lines of a history by session."""
    seen = SessionsSeen()
    for line in lines:
        seen.line_counts[f"{line['op']}.{line['kind']}"] += 1
        if line["op"] == "session":
            seen.sessions[line["session"]] = SessionSeen(line)
        elif line["op"] == "fault":
            seen.faults.append(line)
        elif line["op"] == "load":
            seen.complete = True
        elif line.get("session") in seen.sessions:
            seen.sessions[line["session"]].lines.append(line)
    return seen


def check(lines: Iterable[Line]) -> Verdict:
    """Run every rule on the lines of a history."""
    seen = gather(lines)
    violations = [
        Violation(kind=kind, task=name, what=what)
        for name, session in seen.sessions.items()
        for rule in RULES
        for kind, what in rule(session)
    ]
    if not seen.complete or not seen.sessions:
        violations.append(
            Violation(kind="unsettled", task="", what="the history ends before the clients have ended")
        )
    return Verdict(violations=tuple(violations), counts=dict(seen.line_counts))


def ends(session: SessionSeen) -> Iterator[tuple[str, str]]:
    """There is one event ``ended``. This event is the last one, and has the expected reason."""
    events, wanted = session.events(), session.begin["reason"]
    found = [line["data"]["reason"] for line in events if line["type"] == "ended"]
    if found != [wanted]:
        yield "end", f"it ended {len(found)} times, with {found}, and {wanted} was expected"
    elif events[-1]["type"] != "ended":
        yield "end", f"the event {events[-1]['type']} came after its end"


def text(session: SessionSeen) -> Iterator[tuple[str, str]]:
    """The text of the events equals the expected text, if one is known. The whole text in the last event equals the
    text of the events."""
    wanted = session.begin["text"]
    if wanted is not None and session.text != wanted:
        yield (
            "text",
            f"{_difference(session.text, wanted)}; it has {len(session.text)} of {len(wanted)} letters",
        )
    for line in session.events("ended"):
        if line["data"]["text"] != session.text:
            yield (
                "text",
                f"its last event has another text: {_difference(line['data']['text'], session.text)}",
            )


def order(session: SessionSeen) -> Iterator[tuple[str, str]]:
    """Ids increase, and the positions of texts in the audio never fall. Attempts are numbered from 1."""
    for earlier, later in pairwise(session.events()):
        if _id(later) <= _id(earlier):
            yield "order", f"event {later['id']} came after {earlier['id']}"
    for earlier, later in pairwise(line["data"]["audio_ms"] for line in session.events("text")):
        if later < earlier:
            yield "order", f"text of {later} ms came after text of {earlier} ms"
    attempts = [line["data"]["attempt"] for line in session.events("started")]
    if attempts != list(range(1, len(attempts) + 1)):
        yield "order", f"its attempts are numbered {attempts}"


def sentences(session: SessionSeen) -> Iterator[tuple[str, str]]:
    """Sentences are numbered from 0. Together they are the text, except for an incomplete last sentence."""
    found = [line["data"] for line in session.events("segment")]
    if [data["segment"] for data in found] != list(range(len(found))):
        yield "sentences", f"the sentences are numbered {[data['segment'] for data in found]}"
    by_number: dict[int, str] = {}
    for line in session.events("text"):
        number = line["data"]["segment"]
        by_number[number] = by_number.get(number, "") + line["data"]["text"]
    for data in found:
        written = by_number.get(data["segment"], "").strip()
        if data["text"] != written:
            yield "sentences", f"{data['text']!r} was written as {written!r}"


def audio(session: SessionSeen) -> Iterator[tuple[str, str]]:
    """Each position that the server sends lies between the acknowledged position and the end of the audio that the
    client has sent."""
    sent = acknowledged = 0
    for line in session.lines:
        match line["op"]:
            case "sent":
                sent = max(sent, line["upto"])
            case "ready" | "received":
                position = line["send_from"]
                if position > sent:
                    yield "audio", f"the server has {position} samples, but the client has sent {sent}"
                if position < acknowledged:
                    yield (
                        "audio",
                        f"the server asks for sample {position}, but has acknowledged {acknowledged}",
                    )
                if line["op"] == "received":
                    acknowledged = max(acknowledged, position)


def refusals(session: SessionSeen) -> Iterator[tuple[str, str]]:
    """The number of refused frames equals the number of absurd frames. Every other error closes the connection."""
    codes = [line["code"] for line in session.of("error") if not line["fatal"]]
    if codes != ["invalid_audio"] * session.begin["absurd"]:
        yield "refusals", f"{session.begin['absurd']} frames were absurd, and the refusals are {codes}"


RULES: tuple[Rule, ...] = (ends, text, order, sentences, audio, refusals)


def _id(line: Line) -> tuple[int, int]:
    milliseconds, _, number = line["id"].partition("-")
    return int(milliseconds), int(number)


def _difference(found: str, wanted: str) -> str:
    same = next((at for at, (a, b) in enumerate(zip(found, wanted, strict=False)) if a != b), None)
    at = min(len(found), len(wanted)) if same is None else same
    return f"after {at} letters comes {found[at : at + 40]!r} instead of {wanted[at : at + 40]!r}"


def fault_times(seen: SessionsSeen, *kinds: str) -> list[float]:
    """When faults of these kinds were injected."""
    return [line["t"] for line in seen.faults if line["kind"] in kinds]


def owners(seen: SessionsSeen) -> int:
    """How many times a session got a new owner after its first one, over all sessions."""
    return sum(max(0, len(session.events("started")) - 1) for session in seen.sessions.values())


def events_of(seen: SessionsSeen, kind: str) -> list[dict[str, Any]]:
    """The data of all events of a type."""
    return [line["data"] for session in seen.sessions.values() for line in session.events(kind)]
