"""The client, its examples and the command on a real Daybreak: `daybreakd dev` with its pool `echo`."""

from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from daybreak import (
    AsyncClient,
    Client,
    ConflictError,
    InvalidInputError,
    NotFoundError,
    Retry,
    TaskFailedError,
)
from daybreak.cli.exit_codes import MEANING
from daybreak.cli.main import app
from daybreak.testing import LocalDaybreak

ROOT = Path(__file__).parents[2]
README = ROOT / "controlplane-sdk" / "README.md"


@pytest.fixture
def here(daybreak: LocalDaybreak, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory, with `DAYBREAK_URL` set."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DAYBREAK_URL", daybreak.url)
    monkeypatch.delenv("DAYBREAK_API_KEY", raising=False)
    monkeypatch.setenv("COLUMNS", "120")
    return tmp_path


EXAMPLES = [
    example
    for example in re.findall(r"```python\n(.*?)```", README.read_text(), re.S)
    if "client.sessions" not in example  # run by the server's tests, which have a pool of sessions
]


def test_the_readme_has_two_examples() -> None:
    """The first is blocking code, the second asyncio. Each has about twenty lines."""
    assert len(EXAMPLES) == 2
    assert all(len(example.splitlines()) <= 24 for example in EXAMPLES)


@pytest.mark.parametrize("example", EXAMPLES, ids=["sync", "async"])
def test_the_examples_of_the_readme_run(example: str, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The README's examples work unchanged."""
    exec(compile(example, str(README), "exec"), {"__name__": "__main__"})
    output = capsys.readouterr().out
    if "asyncio" in example:
        assert "cancelled" in output
        assert output.count("succeeded") >= 3
    else:
        assert "input.steps" in output
        assert "hello" in output


def test_the_client_works_on_a_real_server(here: Path) -> None:
    with Client() as client:
        assert client.estimate("echo", {"steps": 2}).feasible
        task = client.submit(
            "echo", {"message": "héllo", "artifact_bytes": 3_000_000}, idempotency_key=str(here)
        )
        assert (
            client.submit(
                "echo", {"message": "héllo", "artifact_bytes": 3_000_000}, idempotency_key=str(here)
            ).id
            == task.id
        )
        with pytest.raises(ConflictError):
            client.submit("echo", {"message": "other"}, idempotency_key=str(here))
        events = list(client.events(task))
        assert [events[0].type, events[-1].type] == ["queued", "succeeded"]
        logged = [event for event in events if event.id]
        middle = logged[len(logged) // 2]
        rest = [event for event in client.events(task, after=middle.id) if event.id]
        assert rest == logged[len(logged) // 2 + 1 :]
        assert list(client.events(task, after=events[-1].id)) == []
        done = client.wait(task, timeout_s=30)
        assert client.download(done, "echo.bin", here / "a.bin").stat().st_size == 3_000_000
        assert "héllo" in client.download(done.id, "echo.txt", here).read_text()
        again = client.replay(task)
        assert client.wait(again).replay_of == task.id
        assert [found.id for found in client.list(pool="echo", state="succeeded", limit=2)] == [
            again.id,
            task.id,
        ]
        client.delete(task)
        with pytest.raises(NotFoundError):
            client.get(task)
        with pytest.raises(NotFoundError):
            list(client.events(task))


def test_a_batch_validates_each_task_by_itself(here: Path) -> None:
    """Valid tasks of a batch are accepted, invalid ones refused. The list of the accepted tasks spans several pages."""
    with Client() as client:
        bodies = [{"pool": "echo", "input": {"steps": 1}}, {"pool": "nope", "input": {}}]
        batch = client.submit_batch(bodies * 50)
        assert [item.status for item in batch.results] == [202, 404] * 50
        made = {item.task.id for item in batch.results if item.task}
        more = client.submit_batch([bodies[0]] * 60)
        made |= {item.task.id for item in more.results if item.task}
        assert made <= {task.id for task in client.list(pool="echo")}


def test_errors_of_the_server_are_exceptions(here: Path) -> None:
    """An invalid input is refused at submit, and `wait` raises the error of a task that failed."""
    with Client() as client:
        with pytest.raises(InvalidInputError, match="nonsense"):
            client.submit("echo", {"nonsense": 1})
        failing = client.submit("echo", {"steps": 3, "fail_at": 2, "fail_kind": "permanent"})
        with pytest.raises(TaskFailedError) as caught:
            client.wait(failing, timeout_s=60)
        assert caught.value.task.error is not None
        assert [pool.name for pool in client.pools()] == [client.pool("echo").name]


async def test_one_client_can_follow_a_task_ten_times_at_once(here: Path) -> None:
    """All ten iterations receive the same events."""

    async def ids(client: AsyncClient, task: str) -> list[str]:
        return [event.id async for event in client.events(task) if event.id]

    async with AsyncClient() as client:
        task = await client.submit("echo", {"steps": 20, "step_s": 0.02})
        seen = await asyncio.gather(*(ids(client, task.id) for _ in range(10)))
        assert len(set(map(tuple, seen))) == 1
        assert len(seen[0]) >= 3


def test_following_survives_a_restart_of_the_server(daybreak: LocalDaybreak, here: Path) -> None:
    """The client receives each event once and in order, although the server restarts."""
    with Client(retry=Retry(attempts=20, max_s=1.0)) as client:
        task = client.submit("echo", {"steps": 60, "step_s": 0.05})
        seen = []
        for event in client.events(task):
            seen.append(event)
            if event.type == "progress" and sum(e.type == "progress" for e in seen) == 3:
                daybreak.stop()
                daybreak.start()
        assert seen[-1].type == "succeeded"
        logged = [event.id for event in seen if event.id]
        assert logged == [event.id for event in client.events(task) if event.id]
        assert [event.type for event in seen].count("started") == 2  # the restart ended the first attempt


def test_the_command_works_on_a_real_server(here: Path) -> None:
    """The command submits, follows and lists tasks, downloads files and shows the pools."""

    def daybreak(*args: str) -> tuple[int, str, str]:
        done = CliRunner().invoke(app, list(args), prog_name="daybreak")
        return done.exit_code, done.stdout, done.stderr

    code, out, err = daybreak(
        "submit", "echo", "message=hi", "steps=4", "step_s=0.1", "preview=true", "--previews", "p"
    )
    assert code == 0, err
    assert "hi" in (here / out.strip()).read_text()
    assert "step" in err
    assert any((here / "p").iterdir())
    code, out, _ = daybreak("submit", "echo", "steps=2", "--json")
    answer = json.loads(out)
    assert (code, answer["task"]["state"]) == (0, "succeeded")
    code, out, err = daybreak("submit", "echo", "--detach")
    assert code == 0, err
    code, out, err = daybreak("tasks", "watch", out.strip(), "--json")
    assert (code, [json.loads(line)["type"] for line in out.splitlines()][-1]) == (0, "succeeded")
    assert daybreak("submit", "echo", "fail_at=1", "fail_kind=permanent")[0] == 1
    assert daybreak("generate", "x", "--pool", "nope")[0] == 3
    code, out, _ = daybreak("pools", "--json")
    assert json.loads(out)["workload"] == "echo"
    assert daybreak("tasks", "list")[1].count("succeeded") >= 3


def test_a_running_task_and_its_end_have_a_trace(here: Path) -> None:
    """`daybreak trace` needs no collector, and does not wait for the end of a running task."""
    with Client() as client:
        task = client.submit("echo", {"steps": 2000, "step_s": 0.01})
        next(event for event in client.events(task) if event.type == "progress")
        running = json.loads(CliRunner().invoke(app, ["trace", task.id, "--json"]).stdout)
        client.cancel(task)
        client.wait(task, check=False)
        ended = json.loads(CliRunner().invoke(app, ["trace", task.id, "--json"]).stdout)
    assert [part["kind"] for part in running["parts"]][-1] == "attempt"
    assert (running["state"], running["parts"][-1]["outcome"]) == ("running", "running")
    assert (ended["state"], ended["parts"][-1]["outcome"]) == ("cancelled", "cancelled")
    assert ended["parts"][-1]["pieces"][-1]["steps"] == 2000
    assert ended["usage"]["gpu_seconds"] > 0


def test_a_rejected_number_comes_with_a_working_hint(here: Path) -> None:
    """The command that the hint gives works."""
    done = CliRunner().invoke(app, ["submit", "echo", "message=2026"], prog_name="daybreak")
    assert (done.exit_code, done.stdout) == (2, "")
    assert "for text, write message='\"2026\"'." in done.stderr
    assert CliRunner().invoke(app, ["submit", "echo", 'message="2026"']).exit_code == 0


def test_the_client_page_lists_the_exit_codes() -> None:
    """docs/06-client.md lists the exit codes as the source defines them."""
    page = (ROOT / "docs" / "06-client.md").read_text()
    for code, words in MEANING.items():
        assert f"| {code.value} | {words} |" in page
