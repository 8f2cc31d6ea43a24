"""What clients were told, against what there was in the end."""

from __future__ import annotations

from collections.abc import Iterator

from verification.faults.checks.observations import TERMINAL, Observations, Violation


def lost(told: Observations) -> Iterator[Violation]:
    """A task that was accepted is there in the end; and it is in every list asked for after it was."""
    if told.over:
        for task, call in told.accepted.items():
            if task not in told.finals:
                yield Violation(
                    kind="lost", task=task, what=f"accepted at {call.ended:.3f}, not there in the end"
                )
    by_place: dict[tuple[str, str], list[tuple[float, str]]] = {}
    for task, call in told.accepted.items():
        by_place.setdefault((call.asked["tenant"], call.asked["pool"]), []).append((call.ended, task))
    for call in told.of("list"):
        for ended, task in by_place.get((call.asked["tenant"], call.asked["pool"]), []):
            if ended < call.began and task not in call.got["tasks"]:
                yield Violation(
                    kind="lost", task=task, what=f"missing in the list asked for at {call.began:.3f}"
                )
        if call.got["count"] != len(call.got["tasks"]):
            yield Violation(kind="list", task=None, what="a list names a task twice")
    for call in told.of("get", "refused"):
        if call.got.get("code") == "not_found":
            yield Violation(kind="lost", task=call.asked["task"], what=f"404 at {call.ended:.3f}")


def unsettled(told: Observations) -> Iterator[Violation]:
    """Every task has ended within its bound."""
    for task in told.left or ():
        yield Violation(kind="stuck", task=task, what="had not ended within the bound")
    for task, record in told.finals.items():
        if record["state"] not in TERMINAL and task not in (told.left or ()):
            yield Violation(kind="stuck", task=task, what=f"{record['state']} in the end")


def idempotent(told: Observations) -> Iterator[Violation]:
    """One key, one task: for those who asked, and in the store."""
    ids: dict[str, set[str]] = {}
    for call in told.of("submit"):
        ids.setdefault(call.asked["key"], set()).add(call.got["task"])
    for task, record in told.finals.items():
        key = record.get("metadata", {}).get("key")
        if key is not None:
            ids.setdefault(key, set()).add(task)
    asked = {call.asked["key"] for call in told.of("submit", None)}
    for key, tasks in ids.items():
        if len(tasks) > 1:
            yield Violation(kind="twice", task=min(tasks), what=f"{key} made {sorted(tasks)}")
        if key not in asked:
            yield Violation(kind="twice", task=min(tasks), what=f"nobody handed in {key}")


def cancelled(told: Observations) -> Iterator[Violation]:
    """A cancel that was acknowledged before the task had ended is the task's end."""
    for call in told.of("cancel"):
        task, state = call.asked["task"], call.got["state"]
        final = told.finals.get(task)
        if final is None or final["state"] not in TERMINAL:
            continue
        if state in TERMINAL and state != final["state"]:
            yield Violation(kind="two-ends", task=task, what=f"told {state}, then {final['state']}")
        if state not in TERMINAL and final["state"] != "cancelled":
            yield Violation(kind="cancel", task=task, what=f"a cancel was accepted; it {final['state']}")


def never_back(told: Observations) -> Iterator[Violation]:
    """Who saw a task's end never sees another state of it later; attempts and strikes never fall."""
    ends: dict[str, tuple[float, str]] = {}
    looks: list[tuple[float, float, str, str]] = []
    numbers: list[tuple[float, float, str, int, int]] = []
    for call in told.calls:
        if call.kind != "ok":
            continue
        if call.op in ("get", "cancel", "submit"):
            looks.append((call.began, call.ended, call.got["task"], call.got["state"]))
        if call.op == "get":
            numbers.append(
                (call.began, call.ended, call.got["task"], call.got["attempt"], call.got["strikes"])
            )
        if call.op == "list":
            looks += [(call.began, call.ended, task, state) for task, state in call.got["tasks"].items()]
    for events in told.readers.values():
        for event in events:
            if event["type"] in TERMINAL:
                looks.append((event["t"], event["t"], event["task"], event["type"]))
    for _, ended, task, state in looks:
        if state in TERMINAL and (task not in ends or ended < ends[task][0]):
            ends[task] = (ended, state)
    for began, _, task, state in looks:
        if task in ends and began > ends[task][0] and state != ends[task][1]:
            yield Violation(kind="two-ends", task=task, what=f"{ends[task][1]}, then {state} at {began:.3f}")
    yield from _falling(numbers)


def _falling(numbers: list[tuple[float, float, str, int, int]]) -> Iterator[Violation]:
    by_task: dict[str, list[tuple[float, float, int, int]]] = {}
    for began, ended, task, attempt, strikes in numbers:
        by_task.setdefault(task, []).append((began, ended, attempt, strikes))
    for task, looks in by_task.items():
        for _, ended, attempt, strikes in looks:
            for began, _, later_attempt, later_strikes in looks:
                if began > ended and (later_attempt < attempt or later_strikes < strikes):
                    what = f"attempt {attempt}, strikes {strikes}; later {later_attempt}, {later_strikes}"
                    yield Violation(kind="attempt-falls", task=task, what=what)


def clients_failed(told: Observations) -> Iterator[Violation]:
    """A client that waits patiently gets its answer: none gave up, none met what it cannot read."""
    for line in told.failed_clients:
        yield Violation(kind="client", task=None, what=line["error"])
