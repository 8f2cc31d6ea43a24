"""``daybreak tasks …``: what was handed in, and what became of it."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from daybreak.cli.destinations import OUT, Place
from daybreak.cli.exit_codes import OF_STATE, Exit, UsageError, reporting
from daybreak.cli.follow import Follow
from daybreak.cli.options import JsonOption, PreviewsOption, TaskId
from daybreak.cli.output import Output, age, seconds, size
from daybreak.cli.session import session_of
from daybreak.cli.summary import report
from daybreak.cli.timeline import phase_words
from daybreak.core.download import artifact_of
from daybreak.core.follow import require_event_id
from daybreak.wire import Task, TaskState

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="rich",
    help="List, show, watch, cancel, replay, download and delete tasks.",
)


@app.command("list")
def list_tasks(
    context: typer.Context,
    *,
    pool: Annotated[str | None, typer.Option(help="Only of this pool.")] = None,
    state: Annotated[TaskState | None, typer.Option(help="Only in this state.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="At most so many.")] = 20,
    oldest_first: Annotated[
        bool, typer.Option("--oldest-first", help="Instead of the newest first.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """List tasks, the newest first.

    Examples:

    $ daybreak tasks list --state running

    $ daybreak tasks list --limit 1000 --json | jq -r 'select(.state == "failed") | .id'
    """
    output = Output(as_json=as_json)
    with reporting(output), session_of(context).client() as client:
        found = client.list(pool=pool, state=state, order="asc" if oldest_first else "desc", limit=limit)
        if as_json:
            for task in found:
                output.json(task.to_json())
            return
        rows = [(task.id, task.state.value, _where(task), age(task.created_at)) for task in found]
        output.table(("task", "state", "where", "handed in"), rows)
        if not rows:
            output.note('nothing yet; try: daybreak generate "a red circle moving left"', style="dim")


@app.command()
def show(context: typer.Context, task_id: TaskId, as_json: JsonOption = False) -> None:
    """Show one task: its state, input, times, files and what it used."""
    output = Output(as_json=as_json)
    with reporting(output), session_of(context).client() as client:
        task = client.get(task_id)
        if as_json:
            output.json(task.to_json())
            return
        for name, value in _facts(task):
            output.line(f"{name:<10} {value}")


@app.command()
def watch(
    context: typer.Context,
    task_id: TaskId,
    after: Annotated[
        str | None, typer.Option(metavar="EVENT", help="Only what came after this event id.")
    ] = None,
    previews: PreviewsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Follow a task to its end; with `--json` one event a line. Ctrl-C leaves, and the task goes on.

    Examples:

    $ daybreak tasks watch video_01JD…

    $ daybreak tasks watch video_01JD… --json | jq -r 'select(.type == "progress") | .data.fraction'
    """
    output = Output(as_json=as_json)
    with reporting(output), session_of(context).client() as client:
        if after is not None:
            require_event_id(after)
        task = client.get(task_id)
        story = Follow(client=client, output=output, previews=previews, after=after).run(task)
        ended = client.get(task_id)
        code = OF_STATE[ended.state] if as_json else report(output, ended, story, None)
    raise typer.Exit(code)


@app.command()
def cancel(context: typer.Context, task_id: TaskId, as_json: JsonOption = False) -> None:
    """Ask for a task's end. A running one stops within a step; one that has ended stays as it is."""
    output = Output(as_json=as_json)
    with reporting(output), session_of(context).client() as client:
        task = client.cancel(task_id)
        if as_json:
            output.json(task.to_json())
        elif task.state is TaskState.RUNNING:
            output.line(f"{task.id} is asked to stop")
        else:
            output.line(f"{task.id} {task.state.value}")


@app.command()
def replay(context: typer.Context, task_id: TaskId, as_json: JsonOption = False) -> None:
    """Hand in a task that has ended once more, as a new one; prints the new id."""
    output = Output(as_json=as_json)
    with reporting(output), session_of(context).client() as client:
        task = client.replay(task_id)
        if as_json:
            output.json(task.to_json())
            return
        output.line(task.id)
        output.note(f"next: daybreak tasks watch {task.id}", style="dim")


@app.command()
def download(
    context: typer.Context,
    task_id: TaskId,
    names: Annotated[
        list[str] | None, typer.Argument(metavar="NAME", help="Which files; absent: all.")
    ] = None,
    *,
    out: Annotated[
        str | None,
        typer.Option(
            "-o",
            "--out",
            metavar="DIR",
            help="Where they go: a folder; for one NAME also a file, or - for stdout.",
            show_default="out/ID",
        ),
    ] = None,
    folder: Annotated[str | None, typer.Option("-d", "--dir", metavar="DIR", hidden=True)] = None,
    as_json: JsonOption = False,
) -> None:
    """Fetch a task's files. A download that broke goes on where it was; each SHA-256 is checked.

    Examples:

    $ daybreak tasks download video_01JD…

    $ daybreak tasks download video_01JD… video.mp4 -o circle.mp4

    $ daybreak tasks download video_01JD… -o files/
    """
    output = Output(as_json=as_json)
    with reporting(output), session_of(context).client() as client:
        if out is not None and folder is not None:
            raise UsageError("-d is the former name of -o: give one of them")
        place = Place.of(out, as_json=as_json)
        if place.stdout and len(names or ()) != 1:
            raise UsageError("-o - takes one file: give its NAME, which `daybreak tasks show ID` lists")
        task = client.get(task_id)
        if not (names or task.artifacts):
            raise typer.Exit(_nothing(output, task))
        # One file may have a name of its own; several, or all of them however many, go into a folder.
        if len(names or ()) != 1 or out is None:
            place = Place(os.path.join(folder or out or OUT / task.id, ""))
        found = [artifact_of(task, name) for name in names or [one.name for one in task.artifacts]]
        for artifact in found:
            place.check(artifact.name)
        for artifact in found:
            file = place.bring(client, task, artifact, default=OUT / task.id)
            if as_json:
                output.json({"task": task.id, "name": artifact.name, "file": str(file.path)})
            elif file.path is not None:
                output.file(file.path)


def _nothing(output: Output, task: Task) -> Exit:
    succeeded = task.state is TaskState.SUCCEEDED
    code = Exit.NOT_FOUND if succeeded else OF_STATE.get(task.state, Exit.CONFLICT)
    output.error(f"{task.id} is {task.state.value} and has no files", code=code.name.lower())
    return code


@app.command()
def delete(context: typer.Context, task_id: TaskId, as_json: JsonOption = False) -> None:
    """Remove a task that has ended, with its events and files. Cancel a running one first."""
    output = Output(as_json=as_json)
    with reporting(output), session_of(context).client() as client:
        client.delete(task_id)
        if as_json:
            output.json({"id": task_id, "deleted": True})
        else:
            output.line(f"{task_id} deleted")


def _where(task: Task) -> str:
    if task.state is TaskState.RUNNING and task.progress is not None:
        return f"{phase_words(task.phase or 'start')} {task.progress.fraction:.0%}"
    if task.state is TaskState.QUEUED and task.queue is not None:
        return f"number {task.queue.position} in line"
    if task.finished_at is not None and task.started_at is not None:
        return f"ran {seconds((task.finished_at - task.started_at).total_seconds())}"
    return ""


def _facts(task: Task) -> list[tuple[str, str]]:
    cancelling = " (asked to stop)" if task.cancel_requested and not task.state.terminal else ""
    facts = [("task", task.id), ("state", task.state.value + cancelling), ("where", _where(task))]
    if task.wake is not None:
        facts.append(("waking", f"{phase_words(task.wake.phase)}, about {seconds(task.wake.eta_s)} left"))
    if task.error is not None:
        facts.append(
            (
                "error",
                f"{task.error.message} ({task.error.code}, attempt {task.error.attempt or task.attempt})",
            )
        )
    facts += [("input", ", ".join(f"{name}={_short(value)}" for name, value in (task.input or {}).items()))]
    facts += [("metadata", ", ".join(f"{name}={value}" for name, value in task.metadata.items()))]
    facts.append(("attempts", f"{task.attempt}, {task.strikes} failed, {task.releases} handed back"))
    for name, at in (
        ("handed in", task.created_at),
        ("started", task.started_at),
        ("ended", task.finished_at),
    ):
        facts.append((name, f"{at:%Y-%m-%d %H:%M:%S} UTC, {age(at)}" if at is not None else ""))
    if task.usage is not None:
        facts.append(
            ("used", f"{task.usage.gpu_seconds:.1f} GPU-seconds, {task.usage.wasted_gpu_seconds:.1f} wasted")
        )
    facts += [("replay of", task.replay_of or "")]
    facts += [
        ("file", f"{each.name}  {size(each.size_bytes)}  {each.sha256[:12]}…") for each in task.artifacts
    ]
    return [(name, value) for name, value in facts if value]


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 80 else text[:77] + "…"
