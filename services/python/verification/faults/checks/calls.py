"""Calls: the responses that clients got, compared with the final records and with each other."""

from __future__ import annotations

from collections.abc import Iterator

from verification.faults.checks.observations import TERMINAL, Observations, Violation


def lost(observations: Observations) -> Iterator[Violation]:
    """An accepted task exists at the end and is in every list that was requested after its acceptance."""
    if observations.complete:
        for task, call in observations.accepted.items():
            if task not in observations.final_records:
                yield Violation(
                    kind="lost", task=task, what=f"accepted at {call.ended:.3f}, missing at the end"
                )
    by_list: dict[tuple[str, str], list[tuple[float, str]]] = {}
    for task, call in observations.accepted.items():
        by_list.setdefault((call.request["tenant"], call.request["pool"]), []).append((call.ended, task))
    for call in observations.calls_to("list"):
        for ended, task in by_list.get((call.request["tenant"], call.request["pool"]), []):
            if ended < call.began and task not in call.response["tasks"]:
                yield Violation(
                    kind="lost", task=task, what=f"missing in the list requested at {call.began:.3f}"
                )
        if call.response["count"] != len(call.response["tasks"]):
            yield Violation(kind="list", task=None, what="a list names a task twice")
    for call in observations.calls_to("get", "refused"):
        if call.response.get("code") == "not_found":
            yield Violation(kind="lost", task=call.request["task"], what=f"404 at {call.ended:.3f}")


def unsettled(observations: Observations) -> Iterator[Violation]:
    """Every task has ended within the time limit."""
    for task in observations.unfinished or ():
        yield Violation(kind="stuck", task=task, what="had not ended within the time limit")
    for task, record in observations.final_records.items():
        if record["state"] not in TERMINAL and task not in (observations.unfinished or ()):
            yield Violation(kind="stuck", task=task, what=f"still {record['state']} at the end")


def idempotent(observations: Observations) -> Iterator[Violation]:
    """Each idempotency key belongs to one task only, in responses and in the store."""
    ids: dict[str, set[str]] = {}
    for call in observations.calls_to("submit"):
        ids.setdefault(call.request["key"], set()).add(call.response["task"])
    for task, record in observations.final_records.items():
        key = record.get("metadata", {}).get("key")
        if key is not None:
            ids.setdefault(key, set()).add(task)
    submitted = {call.request["key"] for call in observations.calls_to("submit", None)}
    for key, tasks in ids.items():
        if len(tasks) > 1:
            yield Violation(kind="twice", task=min(tasks), what=f"{key} made {sorted(tasks)}")
        if key not in submitted:
            yield Violation(kind="twice", task=min(tasks), what=f"no client submitted {key}")


def cancelled(observations: Observations) -> Iterator[Violation]:
    """A task ends as cancelled if a cancel was acknowledged before the task had ended."""
    for call in observations.calls_to("cancel"):
        task, state = call.request["task"], call.response["state"]
        final = observations.final_records.get(task)
        if final is None or final["state"] not in TERMINAL:
            continue
        if state in TERMINAL and state != final["state"]:
            yield Violation(
                kind="two-ends", task=task, what=f"the cancel returned {state}, but the task {final['state']}"
            )
        if state not in TERMINAL and final["state"] != "cancelled":
            yield Violation(
                kind="cancel", task=task, what=f"a cancel was accepted, but the task {final['state']}"
            )


def never_back(observations: Observations) -> Iterator[Violation]:
    """Once a client has seen a task end, no client sees another state later.

    The number of a task's attempt and the number of its strikes never fall.
    """
    ends: dict[str, tuple[float, str]] = {}
    looks: list[tuple[float, float, str, str]] = []
    numbers: list[tuple[float, float, str, int, int]] = []
    for call in observations.calls:
        if call.kind != "ok":
            continue
        if call.op in ("get", "cancel", "submit"):
            looks.append((call.began, call.ended, call.response["task"], call.response["state"]))
        if call.op == "get":
            numbers.append(
                (
                    call.began,
                    call.ended,
                    call.response["task"],
                    call.response["attempt"],
                    call.response["strikes"],
                )
            )
        if call.op == "list":
            looks += [(call.began, call.ended, task, state) for task, state in call.response["tasks"].items()]
    for events in observations.readers.values():
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


def clients_failed(observations: Observations) -> Iterator[Violation]:
    """Every client gets a response that it can read, because it retries for long enough."""
    for line in observations.failed_clients:
        yield Violation(kind="client", task=None, what=line["error"])
