"""A group that answers requests works off files of lines beside them, each line exactly once, also after kills."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest

from daybreak_server.domain.pools import GroupState
from daybreak_server.domain.tasks import State
from daybreak_server.engines.gang.rank_lifecycle import Rank
from daybreak_server.workloads.base import Group, WorkloadSpec
from daybreak_server.workloads.bulk import BulkParams, LineError
from daybreak_server.workloads.serving import Request, Response
from daybreak_server.workloads.text.batches import TextBatches
from testkit.pools import Pool, make_settings
from testkit.ranks import Ranks
from testkit.valkey import Server
from testkit.waiting import wait_until

POISON = 1_000_001
HELD = 1500


class Squares:
    """Squares numbers, in batches of requests and tasks. The tests hold its model, and see its batches."""

    models = ("squares",)
    go = threading.Event()
    go.set()
    batches: list[list[int]] = []  # noqa: RUF012 - the tests reset it
    broken = False

    def load(self, group: Group) -> None:
        self._batches: TextBatches[int, int] = TextBatches(
            self._model, {"max_batch_size": 16, **group.options.get("batching", {})}, group=group
        )
        self._hold = group.options.get("hold")

    def warm_up(self) -> None:
        pass

    def serve(self, request: Request) -> Response:
        number = json.loads(request.body)
        return Response.of_json(self._batches.compute(request, [number], [1])[0])

    def bulk(
        self, _params: BulkParams, values: Sequence[Any], *, cancelled: Callable[[], bool]
    ) -> Sequence[Mapping[str, Any] | LineError]:
        numbers = [value["n"] if isinstance(value, dict) else value for value in values]
        good = [number for number in numbers if isinstance(number, int)]
        squares = iter(self._batches.compute_bulk(good, [1] * len(good), cancelled=cancelled))
        return [
            {"square": next(squares)}
            if isinstance(number, int)
            else LineError("Not a number.", code="no_number")
            for number in numbers
        ]

    def _model(self, numbers: Sequence[int]) -> Sequence[int]:
        type(self).batches.append(list(numbers))
        assert self.go.wait(60)
        if self._hold and HELD in numbers:  # in a process of its own, which the test kills here
            wait_until(lambda: not Path(self._hold).exists(), 60, "the end of the hold")
        if self.broken or POISON in numbers:
            raise ValueError("the model cannot square this")
        return [number**2 for number in numbers]


SPEC: WorkloadSpec[BulkParams] = WorkloadSpec(
    name="squares", kind="online", Params=BulkParams, implementation=f"{__name__}:Squares", capacity=8
)


@pytest.fixture(autouse=True)
def model() -> Iterator[type[Squares]]:
    Squares.go.set()
    Squares.batches.clear()
    Squares.broken = False
    yield Squares
    Squares.go.set()


Start = Callable[..., tuple[Pool, Rank, str]]


@pytest.fixture
def start(serving: Start, tmp_path: Path) -> Start:
    def begin(**options: Any) -> tuple[Pool, Rank, str]:
        (tmp_path / "files").mkdir(exist_ok=True)
        bulk = {"places": {"files": (tmp_path / "files").as_uri()}, **options.pop("bulk", {})}
        return serving(workload=f"{__name__}:SPEC", bulk=bulk, **options)

    return begin


def write(folder: Path, lines: Sequence[Any], name: str = "numbers.jsonl") -> dict[str, str]:
    text = "\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines)
    (folder / "files" / name).write_text(text)
    return {"place": "files", "path": name}


def output(pool: Pool, task: Any) -> list[dict[str, Any]]:
    return [json.loads(line) for line in pool.output(task, "output.jsonl").splitlines()]


def squares(numbers: Sequence[int]) -> list[dict[str, int]]:
    return [{"line": line, "square": number**2} for line, number in enumerate(numbers, 1)]


def test_a_task_turns_each_line_of_a_file_into_a_line_of_its_artifact(start: Start, tmp_path: Path) -> None:
    """In order, and in full batches."""
    pool, _, _ = start()
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
    start: Start, tmp_path: Path, client: httpx.Client
) -> None:
    """The next batch begins with the request, whatever waits before it. The group holds both, and is live for both."""
    pool, _, url = start()
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


def test_lines_without_a_result_say_why_in_the_output(start: Start, tmp_path: Path) -> None:
    """A line that is no JSON, one that the workload refuses, and one that breaks the model for itself only."""
    pool, _, _ = start()
    lines: list[Any] = [*range(300)]
    lines[3], lines[150], lines[200] = "{", {"n": None, "id": "x"}, POISON
    task = pool.submit(file=write(tmp_path, lines))
    pool.wait(task)
    found = output(pool, task)
    assert [line["line"] for line in found] == list(range(1, 301))
    errors = {line["line"]: line["error"]["code"] for line in found if "error" in line}
    assert errors == {4: "invalid_json", 151: "no_number", 201: "workload_failed"}
    assert found[150]["id"] == "x"


def test_a_task_can_fail_at_its_first_bad_line(start: Start, tmp_path: Path) -> None:
    """At once, without further attempts."""
    pool, _, _ = start()
    task = pool.submit(file=write(tmp_path, [1, 2, "{", 4]), on_error="fail")
    record = pool.wait(task, State.FAILED)
    assert (record.error_code, record.attempt) == ("invalid_json", 1)
    assert record.error_message is not None
    assert record.error_message.startswith("Line 3: ")


def test_a_model_that_fails_for_every_line_is_not_the_lines_fault(start: Start, tmp_path: Path) -> None:
    """A task of a hundred thousand errors would count as a success."""
    pool, _, _ = start()
    Squares.broken = True
    task = pool.submit(file=write(tmp_path, range(20)), max_strikes=1)
    assert pool.wait(task, State.FAILED).error_code == "all_lines_failed"


@pytest.mark.parametrize(
    ("file", "code"),
    [
        ({"place": "files", "path": "none.jsonl"}, "input_not_found"),
        ({"place": "files", "path": "../secret.jsonl"}, "input_not_found"),
        ({"place": "files", "path": "link.jsonl"}, "input_not_found"),
        ({"place": "other", "path": "numbers.jsonl"}, "input_not_found"),
        ({"task": "echo_01", "artifact": "secret"}, "input_not_found"),
        ({"task": "echo_01", "artifact": "x", "key": "echo_02/1.a/x"}, "input_not_found"),
        ({"place": "files", "path": "large.jsonl"}, "input_too_large"),
        ({"place": "files", "path": "long.jsonl"}, "input_too_large"),
    ],
)
def test_only_files_of_a_place_that_the_settings_allow_are_read(
    start: Start, tmp_path: Path, file: dict[str, str], code: str
) -> None:
    """No path leads out of its place, and limits hold. The task fails at once."""
    pool, _, _ = start(bulk={"max_bytes": 5000, "max_lines": 100})
    (tmp_path / "secret.jsonl").write_text("1\n")
    (tmp_path / "files" / "link.jsonl").symlink_to(tmp_path / "secret.jsonl")
    write(tmp_path, ["1" * 5001], "large.jsonl")
    write(tmp_path, range(101), "long.jsonl")
    record = pool.wait(pool.submit(file=file), State.FAILED)
    assert (record.error_code, record.attempt) == (code, 1)


def test_a_cancelled_task_leaves_its_group_to_the_requests(
    start: Start, tmp_path: Path, client: httpx.Client
) -> None:
    """The group is not broken, and answers."""
    pool, rank, url = start()
    Squares.go.clear()
    task = pool.submit(file=write(tmp_path, range(5000)))
    wait_until(lambda: Squares.batches, 30, "the first batch")
    pool.cancel(task)
    Squares.go.set()
    record = pool.wait(task, State.CANCELLED)
    assert not record.artifacts
    assert client.post(f"{url}/", content=b"3").json() == 9
    assert rank.unhealthy_reason() is None


def test_a_group_that_leaves_hands_its_task_to_the_next_one(
    start: Start, leader: Callable[..., Rank], tmp_path: Path
) -> None:
    """Without a strike. The next group continues behind the last line of the checkpoint."""
    pool, rank, _ = start(checkpoint_s=0.01, drain_s=30.0)
    gate = threading.Semaphore(0)

    def paced(self: Squares, numbers: Sequence[int]) -> Sequence[int]:
        assert gate.acquire(timeout=60)
        return [number**2 for number in numbers]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Squares, "_model", paced)
        task = pool.submit(file=write(tmp_path, range(2000)))
        gate.release(40)
        pool.wait_step(task, 512)
        pool.wait_for(task, lambda _: "checkpoint" in pool.types(task), "a checkpoint")
        rank.ask_to_leave()
        wait_until(
            lambda: all(group.state is GroupState.DRAINING for group in pool.view().groups),
            30,
            "the group leaves",
        )
        gate.release(2000)
        assert rank.wait_ended(30)
        released = pool.get(task)
        assert (released.strikes, released.releases) == (0, 1)
        leader(pool)
        record = pool.wait(task)
    assert record.resumed_from_step is not None
    assert record.resumed_from_step >= 128
    assert output(pool, task) == squares(range(2000))


def test_a_killed_process_costs_no_line_and_doubles_none(valkey: Server, tmp_path: Path) -> None:
    """The next group takes the lines up to the checkpoint from the stored parts, and computes only the others."""
    hold = tmp_path / "hold"
    hold.touch()
    (tmp_path / "files").mkdir()
    settings = make_settings(
        valkey,
        tmp_path,
        workload=f"{__name__}:SPEC",
        bulk={"places": {"files": (tmp_path / "files").as_uri()}},
        options={"hold": str(hold)},
        checkpoint_s=0.01,
    )
    pool = Pool(settings)
    first = second = None
    try:
        first = Ranks(settings, pool.name, tmp_path / "first", size=1)
        task = pool.submit(file=write(tmp_path, range(2000)))
        pool.wait_for(task, lambda _: "checkpoint" in pool.types(task), "a checkpoint")
        pool.wait_step(task, 1024)
        first.kill(0)
        hold.unlink()
        second = Ranks(settings, pool.name, tmp_path / "second", size=1)
        record = pool.wait(task)
        assert (record.attempt, record.strikes) == (2, 1)
        assert record.resumed_from_step is not None
        assert record.resumed_from_step >= 128
        assert output(pool, task) == squares(range(2000))
    finally:
        for ranks in (first, second):
            if ranks is not None:
                ranks.stop()
        pool.close()
