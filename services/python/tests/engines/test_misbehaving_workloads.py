"""Workloads that misbehave: whatever they raise, log, yield or store, the group lives and the task shows the reason."""

from __future__ import annotations

import json
import queue as queues
from collections.abc import Callable
from pathlib import Path

import pytest

from daybreak_server.domain.causes import Cause
from daybreak_server.domain.tasks import State
from daybreak_server.engines.ranks.rank_lifecycle import Rank
from testkit.misbehaving import ERRORS, STEPS
from testkit.pools import Pool
from testkit.waiting import wait_until

REASONS = {
    "exit": "SystemExit: 3",
    "exit with text": "SystemExit: no licence",
    "interrupt": "KeyboardInterrupt",
    "generator exit": "GeneratorExit: stopped",
    "base": "BaseException: bare",
    "silent": "SilentError: <SilentError that cannot be shown: its __str__ raises SystemExit>",
    "huge": "ValueError: xxxx",
    "surrogate": "ValueError: cannot open caf\\udce9.mp4",
    "nul": "a\\x00b",
    "code": "numbered",
    "group": "several parts failed (2 sub-exceptions): ValueError: left; KeyError: 'right'",
    "permanent group": "PermanentError: never",
    "unpicklable": "UnpicklableError: holds a lock",
    "stop iteration": "generator raised StopIteration",
}
CODES = {"nul": "bad\\x00code", "code": "7", "permanent group": "part_refused"}


@pytest.fixture
def misbehaving(pools: Callable[..., Pool], leader: Callable[..., Rank]) -> Pool:
    """A pool with one group of the misbehaving workload."""
    pool = pools(workload="testkit.misbehaving:SPEC")
    leader(pool)
    return pool


def test_every_error_of_the_odd_workload_is_tested() -> None:
    """Other tests cover `os exit`, which ends the process."""
    assert set(REASONS) == set(ERRORS) - {"os exit"}


@pytest.mark.parametrize("where", ["first", "later", "finally"])
def test_any_error_is_a_strike_with_its_reason_and_the_group_lives(misbehaving: Pool, where: str) -> None:
    """The errors include those that end threads or processes, and those that cannot be shown or stored."""
    tasks = {error: misbehaving.submit(error=error, where=where, max_strikes=1) for error in REASONS}
    again = misbehaving.submit(error="exit", where=where, attempts=1, max_strikes=2)
    for error, task in tasks.items():
        record = misbehaving.wait(task, State.FAILED)
        assert (record.attempt, record.strikes, record.releases) == (1, 1, 0), error
        assert record.error_code == CODES.get(error, "workload_failed")
        assert REASONS[error] in (record.error_message or ""), error
        assert len(record.error_message or "") <= 2000
        assert misbehaving.types(task)[-1] == "failed"
    assert (misbehaving.wait(again).attempt, misbehaving.get(again).strikes) == (2, 1)
    assert len(misbehaving.view().groups) == 1
    assert {
        event.data["group"]
        for task in [*tasks.values(), again]
        for event in misbehaving.events(task)
        if event.type == "started"
    } == {misbehaving.view().groups[0].id}


def test_a_forked_child_does_not_become_a_second_leader(misbehaving: Pool) -> None:
    """The child exits when it returns to the group's code; the parent finishes the task, once."""
    task = misbehaving.submit(error="fork")
    misbehaving.wait(task)
    assert misbehaving.types(task).count("succeeded") == 1
    assert "retrying" not in misbehaving.types(task)


def test_a_workload_that_exits_while_it_loads_breaks_its_group_with_the_reason(
    pools: Callable[..., Pool], leader: Callable[..., Rank]
) -> None:
    """`sys.exit` in `load` does not end the thread silently."""
    pool = pools(workload="testkit.misbehaving:SPEC", options={"load": "exit"})
    broken: queues.SimpleQueue[Cause] = queues.SimpleQueue()
    leader(pool, on_broken=broken.put)
    assert broken.get(timeout=60).message.startswith("SystemExit: 3")
    wait_until(lambda: not pool.view().groups, 30, "the group to have left")


@pytest.mark.parametrize(
    ("says", "expected"), [("surrogate", "caf\\udce9.mp4"), ("nul", "a\\x00b"), ("long", "語" * 1999 + "…")]
)
def test_text_of_a_workload_reaches_the_stream_in_storable_form(
    misbehaving: Pool, says: str, expected: str
) -> None:
    """Log lines, levels and phases have no surrogates and no NUL, and are short enough. Later events arrive too."""
    task = misbehaving.submit(says=says)
    misbehaving.wait(task)
    line, other = (event.data for event in misbehaving.events(task) if event.type == "log")
    assert line["message"] == expected
    assert other["message"] == "'a key'"
    phases = [event.data["phase"] for event in misbehaving.events(task) if event.type == "progress"]
    assert phases[0] == line["level"]
    assert expected.startswith(phases[0].rstrip("…"))
    assert len(phases[0].encode()) <= 64
    assert "\0" not in json.dumps(line)


@pytest.mark.parametrize("steps", ["torch", "numpy", "decimal", "tiny"])
def test_scalars_of_other_libraries_are_accepted_in_steps(misbehaving: Pool, steps: str) -> None:
    """The numbers of a step may be scalars of numpy or torch, or a Decimal."""
    if steps in ("torch", "numpy"):
        pytest.importorskip(steps)
    task = misbehaving.submit(steps=steps)
    record = misbehaving.wait(task)
    assert (record.step, record.steps, record.fraction) == (2, 4, 1.0)
    (progress,) = [
        event.data
        for event in misbehaving.events(task)
        if event.type == "progress" and event.data.get("step")
    ]
    assert (progress["step"], progress["steps"]) == (2, 4)


@pytest.mark.parametrize(
    ("steps", "message"),
    [
        ("nan", "Step.fraction must be a finite number, not nan (float)"),
        ("infinite", "Step.fraction must be a finite number, not inf (float)"),
        ("text", "Step.fraction must be a finite number, not '0.5' (str)"),
        ("many", "Step.fraction must be a number, not tensor([0.1000, 0.2000]) (Tensor)"),
        ("truth", "Step.step must be a whole number from 0 to 2^53 - 1, not True (bool)"),
        ("half", "Step.step must be a whole number from 0 to 2^53 - 1, not 2.5 (float)"),
        ("negative", "Step.step must be a whole number from 0 to 2^53 - 1, not -1 (int)"),
        ("no phase", "Step.phase must be text, not None (NoneType)"),
        ("no step", "run must yield a Step, not 0.5 (float)"),
        ("snapshot", "Step.snapshot must be a function that returns bytes, not b'state' (bytes)"),
    ],
)
def test_an_invalid_step_is_a_permanent_error_that_names_the_field(
    misbehaving: Pool, steps: str, message: str
) -> None:
    """A retry would yield the same step, so the task fails at once. The group then takes the next task."""
    if steps == "many":
        pytest.importorskip("torch")
    record = misbehaving.wait(misbehaving.submit(steps=steps), State.FAILED)
    assert (record.error_code, record.error_message, record.attempt) == ("invalid_step", message, 1)
    misbehaving.wait(misbehaving.submit())


def test_every_step_of_the_odd_workload_is_tested() -> None:
    """A step that is added to the workload must be added to the tests above."""
    assert len(STEPS) == 4 + 10


def test_artifacts_keep_their_names_and_none_is_lost(misbehaving: Pool) -> None:
    """A name keeps its ending, and may have letters of any language.

    If a file system could confuse two names, one of them gets a number.
    """
    wanted = ["日本.mp4", "中国.mp4", "Ünder.txt", "U\u0308nder.txt", "clip.mp4", "CLIP.mp4"]
    wanted += ["a/b.txt", "a\\b.txt", "..", ".hidden", "con.txt", "🎬.mp4", "🎥.mp4"]
    wanted += ["語" * 400 + ".mp4", "not UTF-8", "clip.mp4"]
    task = misbehaving.submit(files=wanted)
    refs = misbehaving.wait(task).artifacts
    names = [ref.name for ref in refs]
    assert names[:5] == ["日本.mp4", "中国.mp4", "Ünder.txt", "Ünder-2.txt", "clip.mp4"]
    assert names[5:9] == ["CLIP-2.mp4", "a-b.txt", "a-b-2.txt", "artifact"]
    assert names[9:13] == ["hidden", "file-con.txt", "artifact.mp4", "artifact-2.mp4"]
    assert names[13:] == ["語" * 58 + ".mp4", "caf.mp4"]
    assert len({ref.key for ref in refs}) == len(refs)
    assert misbehaving.output(task, "日本.mp4").decode() == "日本.mp4"
    assert misbehaving.output(task, "clip.mp4").decode() == "clip.mp4"  # the last file of this name
    assert misbehaving.output(task, "Ünder-2.txt").decode() == "U\u0308nder.txt"
    assert all(ref.key.isascii() and Path(ref.key).suffix == Path(ref.name).suffix for ref in refs)
