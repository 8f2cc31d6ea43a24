"""A group that answers requests also runs tasks. Such a task answers each line of a file exactly once."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2 as httpx

from daybreak_server.domain.pools import GroupState
from daybreak_server.domain.tasks import State
from daybreak_server.engines.ranks.rank_lifecycle import Rank
from daybreak_server.observability.catalogue import exported_by
from daybreak_server.observability.prometheus_meter import PrometheusMeter
from daybreak_server.ports.metrics import Exporter
from testkit.pools import Pool
from testkit.squares import NAN, POISON, Squares, output, squares, write
from testkit.waiting import wait_until

Start = Callable[..., tuple[Pool, Rank, str]]


def test_a_task_turns_each_line_of_a_file_into_a_line_of_its_artifact(
    bulk_serving: Start, tmp_path: Path
) -> None:
    """The lines are in order, and batches are full."""
    pool, _, _ = bulk_serving()
    task = pool.submit(file=write(tmp_path, range(1000)))
    record = pool.wait(task)
    assert output(pool, task) == squares(range(1000))
    assert (record.step, record.steps, record.strikes) == (1000, 1000, 0)
    assert max(map(len, Squares.batches)) == 16
    group = wait_until(
        lambda: next((g for g in pool.view().groups if not g.tasks), None), 30, "an idle group"
    )
    assert group.state in (GroupState.IDLE, GroupState.BUSY)


def test_requests_are_answered_beside_a_task_and_go_first(
    bulk_serving: Start, tmp_path: Path, client: httpx.Client
) -> None:
    """The next batch begins with the request, although lines of the task have waited for longer.

    The group holds the task and the request at once, and the pool counts one live task.
    """
    pool, _, url = bulk_serving()
    Squares.go.clear()
    task = pool.submit(file=write(tmp_path, range(600)))
    wait_until(lambda: Squares.batches, 30, "the first batch")
    answers: list[Any] = []
    caller = threading.Thread(target=lambda: answers.append(client.post(f"{url}/", content=b"7000").json()))
    caller.start()
    group = wait_until(
        lambda: next((g for g in pool.view().groups if g.load and g.load.in_flight), None), 30, "a request"
    )
    assert (group.tasks, group.state) == ((task,), GroupState.BUSY)
    assert pool.view().live == 1
    Squares.go.set()
    caller.join(30)
    assert answers == [49_000_000]
    assert next(number for number, batch in enumerate(Squares.batches) if 7000 in batch) <= 2
    pool.wait(task)
    assert output(pool, task) == squares(range(600))


def test_lines_without_a_result_say_why_in_the_output(bulk_serving: Start, tmp_path: Path) -> None:
    """One line is not JSON, one is refused, one makes the model fail, and one has a result that JSON cannot express."""
    meter = PrometheusMeter(exported_by(Exporter.RANK))
    pool, _, _ = bulk_serving(meter=meter)
    lines: list[Any] = [*range(300)]
    lines[3], lines[150], lines[200], lines[250] = "{", {"n": None, "id": "x"}, POISON, NAN
    task = pool.submit(file=write(tmp_path, lines))
    pool.wait(task)
    found = output(pool, task)
    assert [line["line"] for line in found] == list(range(1, 301))
    errors = {line["line"]: line["error"]["code"] for line in found if "error" in line}
    assert errors == {4: "invalid_json", 151: "no_number", 201: "workload_failed", 251: "invalid_result"}
    assert found[150]["id"] == "x"
    shown = meter.render().decode()
    for outcome, count in (("computed", 296), ("failed", 4)):
        assert f'daybreak_rank_task_lines_total{{outcome="{outcome}",pool="echo"}} {count}.0' in shown


def test_a_task_can_fail_at_its_first_bad_line(bulk_serving: Start, tmp_path: Path) -> None:
    """The task fails at once, without further attempts."""
    pool, _, _ = bulk_serving()
    task = pool.submit(file=write(tmp_path, [1, 2, "{", 4]), on_error="fail")
    record = pool.wait(task, State.FAILED)
    assert (record.error_code, record.attempt) == ("invalid_json", 1)
    assert record.error_message is not None
    assert record.error_message.startswith("Line 3: ")


def test_a_model_that_fails_for_every_line_is_not_the_lines_fault(
    bulk_serving: Start, tmp_path: Path
) -> None:
    """If every line gets an error, the task fails. A task without any result must not count as a success."""
    pool, _, _ = bulk_serving()
    Squares.broken = True
    task = pool.submit(file=write(tmp_path, range(20)), max_strikes=1)
    assert pool.wait(task, State.FAILED).error_code == "all_lines_failed"
    Squares.broken = False
    task = pool.submit(file=write(tmp_path, [NAN] * 20), max_strikes=1)
    assert pool.wait(task, State.FAILED).error_code == "all_lines_failed"


def test_only_files_of_a_place_that_the_settings_allow_are_read(bulk_serving: Start, tmp_path: Path) -> None:
    """A *place* is a folder that the setting `bulk.places` names.

    A task fails at once if its file is missing, outside the place, or larger than a limit.
    """
    pool, _, _ = bulk_serving(bulk={"max_bytes": 5000, "max_lines": 100})
    (tmp_path / "secret.jsonl").write_text("1\n")
    (tmp_path / "files" / "link.jsonl").symlink_to(tmp_path / "secret.jsonl")
    write(tmp_path, ["1" * 5001], "large.jsonl")
    write(tmp_path, range(101), "long.jsonl")
    refused: list[tuple[dict[str, str], str]] = [
        ({"place": "files", "path": "none.jsonl"}, "input_not_found"),
        ({"place": "files", "path": "../secret.jsonl"}, "input_not_found"),
        ({"place": "files", "path": "link.jsonl"}, "input_not_found"),
        ({"place": "other", "path": "numbers.jsonl"}, "input_not_found"),
        ({"task": "echo_01", "artifact": "secret"}, "input_not_found"),
        ({"task": "echo_01", "artifact": "x", "key": "echo_02/1.a/x"}, "input_not_found"),
        ({"place": "files", "path": "large.jsonl"}, "input_too_large"),
        ({"place": "files", "path": "long.jsonl"}, "input_too_large"),
    ]
    for file, code in refused:
        record = pool.wait(pool.submit(file=file), State.FAILED)
        assert (record.error_code, record.attempt) == (code, 1), file
