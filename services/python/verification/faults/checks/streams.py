"""Streams: the events that readers and relays received, compared with the stored ones."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

from verification.faults.checks.observations import TERMINAL, Observations, Violation, parse_event_id


def in_order(observations: Observations) -> Iterator[Violation]:
    """The event ids of a stored stream strictly increase, and its first event is ``queued``."""
    for task, events in observations.streams.items():
        places = [parse_event_id(event["id"]) for event in events]
        if any(later <= earlier for earlier, later in pairwise(places)):
            yield Violation(kind="order", task=task, what="the ids of its stored events do not increase")
        if not events or events[0]["type"] != "queued":
            yield Violation(kind="gap", task=task, what="its stored events do not begin with `queued`")


def readers(observations: Observations) -> Iterator[Violation]:
    """Each reader saw the stored events once and in order, from the first; a reader that ended saw all of them."""
    for reader, events in observations.readers.items():
        task = observations.reader_task[reader]
        stored = observations.streams.get(task)
        if any(event["type"] == "reset" for event in events):
            continue  # `reset`: earlier events are no longer available
        saw = [(event["id"], event["type"]) for event in events if event["id"] is not None]
        if len(set(saw)) != len(saw):
            yield Violation(kind="repeat", task=task, what=f"{reader} saw an event twice")
        if stored is None:
            continue
        expected = [(event["id"], event["type"]) for event in stored]
        if saw != expected[: len(saw)]:
            at = next(n for n, event in enumerate(saw) if n >= len(expected) or event != expected[n])
            right = expected[at] if at < len(expected) else "nothing"
            yield Violation(kind="gap", task=task, what=f"{reader} saw {saw[at]} where {right} is stored")
        elif reader in observations.ended_readers and len(saw) != len(expected):
            yield Violation(
                kind="gap", task=task, what=f"{reader} ended after {len(saw)} of {len(expected)} events"
            )
        if reader in observations.ended_readers and (not saw or saw[-1][1] not in TERMINAL):
            yield Violation(kind="gap", task=task, what=f"{reader} ended before its task did")


def relays(observations: Observations) -> Iterator[Violation]:
    """A relay delivered every stored event at least once. The first deliveries of events are in the stored order."""
    for line in observations.relay_gaps:
        yield Violation(kind="gap", task=None, what=f"the relay of {line['pool']}: {line['error']}")
    if not observations.relays:
        return
    for task, stored in observations.streams.items():
        delivered = observations.relays.get(task, [])
        first = list(dict.fromkeys(event["id"] for event in delivered))
        expected = [event["id"] for event in stored]
        if first != expected:
            missing = [event_id for event_id in expected if event_id not in set(first)]
            what = f"missing {missing[:3]}" if missing else "not in the stored order"
            yield Violation(kind="relay", task=task, what=what)
