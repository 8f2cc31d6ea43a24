"""Streams: what every reader saw, against what is stored."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

from verification.faults.checks.observations import TERMINAL, Observations, Violation, place


def in_order(told: Observations) -> Iterator[Violation]:
    """The ids of a stored stream rise strictly, and it begins with ``queued``."""
    for task, events in told.streams.items():
        places = [place(event["id"]) for event in events]
        if any(later <= earlier for earlier, later in pairwise(places)):
            yield Violation(kind="order", task=task, what="the ids of its stored events do not rise")
        if not events or events[0]["type"] != "queued":
            yield Violation(kind="gap", task=task, what="its stored events do not begin with `queued`")


def readers(told: Observations) -> Iterator[Violation]:
    """Each reader saw the stored events from the first on, each once, in order; to the end if it ended."""
    for reader, events in told.readers.items():
        task = told.reader_task[reader]
        stored = told.streams.get(task)
        if any(event["type"] == "reset" for event in events):
            continue  # it was told that history before this is not given
        saw = [(event["id"], event["type"]) for event in events if event["id"] is not None]
        if len(set(saw)) != len(saw):
            yield Violation(kind="repeat", task=task, what=f"{reader} saw an event twice")
        if stored is None:
            continue
        want = [(event["id"], event["type"]) for event in stored]
        if saw != want[: len(saw)]:
            at = next(n for n, one in enumerate(saw) if n >= len(want) or one != want[n])
            expected = want[at] if at < len(want) else "nothing"
            yield Violation(kind="gap", task=task, what=f"{reader} saw {saw[at]} where {expected} is stored")
        elif reader in told.ended_readers and len(saw) != len(want):
            yield Violation(
                kind="gap", task=task, what=f"{reader} ended after {len(saw)} of {len(want)} events"
            )
        if reader in told.ended_readers and (not saw or saw[-1][1] not in TERMINAL):
            yield Violation(kind="gap", task=task, what=f"{reader} ended before its task did")


def relays(told: Observations) -> Iterator[Violation]:
    """A relay handed out every stored event at least once; first deliveries are in order."""
    for line in told.relay_gaps:
        yield Violation(kind="gap", task=None, what=f"the relay of {line['pool']}: {line['error']}")
    if not told.relays:
        return
    for task, stored in told.streams.items():
        got = told.relays.get(task, [])
        first = list(dict.fromkeys(event["id"] for event in got))
        want = [event["id"] for event in stored]
        if first != want:
            missing = [one for one in want if one not in set(first)]
            what = f"missing {missing[:3]}" if missing else "not in the order in which they are stored"
            yield Violation(kind="relay", task=task, what=what)
