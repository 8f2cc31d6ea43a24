"""``daybreak tasks …``: list, show and watch tasks, read their logs, cancel, replay, download and delete them."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from daybreak.cli.destinations import OUT, Destination
from daybreak.cli.exit_codes import EXIT_OF_STATE, Exit, UsageError, report_errors
from daybreak.cli.follow import TaskFollower
from daybreak.cli.global_options import global_options
from daybreak.cli.options import JsonOption, PreviewsOption, TaskId
from daybreak.cli.output import Output, age, seconds, size
from daybreak.cli.summary import report
from daybreak.cli.timeline import phase_label
from daybreak.core.download import artifact_of
from daybreak.core.follow import require_event_id
from daybreak.wire import Task, TaskState

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="rich",
    help="List, show and watch tasks, read their logs, cancel, replay, download and delete them.",
)


@app.command("list")
def list_tasks(
    context: typer.Context,
    *,
    pool: Annotated[str | None, typer.Option(help="List only tasks of this pool.")] = None,
    state: Annotated[TaskState | None, typer.Option(help="List only tasks in this state.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="The maximum number of tasks.")] = 20,
    oldest_first: Annotated[
        bool, typer.Option("--oldest-first", help="List the oldest tasks first.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """List tasks, newest first.

    Examples:

    $ daybreak tasks list --state running

    $ daybreak tasks list --limit 1000 --json | jq -r 'select(.state == "failed") | .id'
    """
    output = Output(as_json=as_json)
    with report_errors(output), global_options(context).client() as client:
        tasks = client.list(pool=pool, state=state, order="asc" if oldest_first else "desc", limit=limit)
        if as_json:
            for task in tasks:
                output.json(task.to_json())
            return
        rows = [(task.id, task.state.value, _progress(task), age(task.created_at)) for task in tasks]
        output.table(("task", "state", "progress", "submitted"), rows)
        if not rows:
            output.note('no tasks; try: daybreak generate "a red circle moving left"', style="dim")


@app.command()
def show(context: typer.Context, task_id: TaskId, as_json: JsonOption = False) -> None:
    """Show a task: its state, input, times, files and GPU time."""
    output = Output(as_json=as_json)
    with report_errors(output), global_options(context).client() as client:
        task = client.get(task_id)
        if as_json:
            output.json(task.to_json())
            return
        for name, value in _describe(task):
            output.line(f"{name:<10} {value}")


@app.command()
def watch(
    context: typer.Context,
    task_id: TaskId,
    after: Annotated[
        str | None, typer.Option(metavar="EVENT", help="Show only events after the event with this id.")
    ] = None,
    previews: PreviewsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Follow a task to its end. With `--json`, print one event per line. Ctrl-C exits; the task continues.

    Examples:

    $ daybreak tasks watch video_01JD…

    $ daybreak tasks watch video_01JD… --json | jq -r 'select(.type == "progress") | .data.fraction'
    """
    output = Output(as_json=as_json)
    with report_errors(output), global_options(context).client() as client:
        if after is not None:
            require_event_id(after)
        task = client.get(task_id)
        timeline = TaskFollower(client=client, output=output, previews=previews, after=after).run(task)
        ended = client.get(task_id)
        code = EXIT_OF_STATE[ended.state] if as_json else report(output, ended, timeline, None)
    raise typer.Exit(code)


@app.command()
def logs(
    context: typer.Context,
    task_id: TaskId,
    *,
    follow: Annotated[
        bool, typer.Option("-f", "--follow", help="Wait for further lines, until the task ends.")
    ] = False,
    after: Annotated[
        str | None,
        typer.Option(metavar="EVENT", help="Show only lines after the event with this id (see `--json`)."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Show the lines of a task's log, oldest first. Ctrl-C exits; the task continues.

    The server keeps about the last 1,000 events of a task. If lines are missing, because they were logged too fast or
    are too old, a note says how many. The log of Daybreak itself is not shown: see `kubectl logs`.

    Examples:

    $ daybreak tasks logs video_01JD…

    $ daybreak tasks logs -f video_01JD…

    $ daybreak tasks logs video_01JD… --json | jq -r 'select(.level == "warning") | .message'
    """
    output = Output(as_json=as_json)
    with report_errors(output), global_options(context).client() as client:
        for line in client.logs(task_id, follow=follow, after=after):
            if as_json:
                output.json(line.to_json())
                continue
            if line.dropped:
                output.note(f"{line.dropped} lines are missing here", style="dim")
            output.line(f"{line.at:%Y-%m-%d %H:%M:%S} {line.level:<7} {line.message}")


@app.command()
def cancel(context: typer.Context, task_id: TaskId, as_json: JsonOption = False) -> None:
    """Cancel a task. A running task stops at the end of its current step; a task that has ended stays as it is."""
    output = Output(as_json=as_json)
    with report_errors(output), global_options(context).client() as client:
        task = client.cancel(task_id)
        if as_json:
            output.json(task.to_json())
        elif task.state is TaskState.RUNNING:
            output.line(f"{task.id} is being cancelled")
        else:
            output.line(f"{task.id} {task.state.value}")


@app.command()
def replay(context: typer.Context, task_id: TaskId, as_json: JsonOption = False) -> None:
    """Submit a new task with the input of a task that has ended, and print its id."""
    output = Output(as_json=as_json)
    with report_errors(output), global_options(context).client() as client:
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
        list[str] | None, typer.Argument(metavar="NAME", help="The files to download. Default: all.")
    ] = None,
    *,
    out: Annotated[
        str | None,
        typer.Option(
            "-o",
            "--out",
            metavar="DIR",
            help="A folder. For a single NAME, it may also be a file, or - for stdout.",
            show_default="out/ID",
        ),
    ] = None,
    folder: Annotated[str | None, typer.Option("-d", "--dir", metavar="DIR", hidden=True)] = None,
    as_json: JsonOption = False,
) -> None:
    """Download a task's files. An interrupted download resumes, and the SHA-256 of each file is verified.

    Examples:

    $ daybreak tasks download video_01JD…

    $ daybreak tasks download video_01JD… video.mp4 -o circle.mp4

    $ daybreak tasks download video_01JD… -o files/
    """
    output = Output(as_json=as_json)
    with report_errors(output), global_options(context).client() as client:
        if out is not None and folder is not None:
            raise UsageError("-d is the old name of -o: use only one of them")
        destination = Destination.of(out, as_json=as_json)
        if destination.stdout and len(names or ()) != 1:
            raise UsageError("-o - takes a single file: add its NAME, as listed by `daybreak tasks show ID`")
        task = client.get(task_id)
        if not (names or task.artifacts):
            raise typer.Exit(_no_files(output, task))
        # With a single NAME, --out may be a file. In all other cases, the files go into a folder.
        if len(names or ()) != 1 or out is None:
            destination = Destination(os.path.join(folder or out or OUT / task.id, ""))
        artifacts = [artifact_of(task, name) for name in names] if names else task.artifacts
        for artifact in artifacts:
            destination.check(artifact.name)
        for artifact in artifacts:
            file = destination.download(client, task, artifact, default=OUT / task.id)
            if as_json:
                output.json({"task": task.id, "name": artifact.name, "file": str(file.path)})
            elif file.path is not None:
                output.file(file.path)


def _no_files(output: Output, task: Task) -> Exit:
    succeeded = task.state is TaskState.SUCCEEDED
    code = Exit.NOT_FOUND if succeeded else EXIT_OF_STATE.get(task.state, Exit.CONFLICT)
    output.error(f"{task.id} is {task.state.value} and has no files", code=code.name.lower())
    return code


@app.command()
def delete(context: typer.Context, task_id: TaskId, as_json: JsonOption = False) -> None:
    """Delete a task that has ended, with its events and files. Cancel a running task first."""
    output = Output(as_json=as_json)
    with report_errors(output), global_options(context).client() as client:
        client.delete(task_id)
        if as_json:
            output.json({"id": task_id, "deleted": True})
        else:
            output.line(f"{task_id} deleted")


def _progress(task: Task) -> str:
    if task.state is TaskState.RUNNING and task.progress is not None:
        return f"{phase_label(task.phase or 'start')} {task.progress.fraction:.0%}"
    if task.state is TaskState.QUEUED and task.queue is not None:
        return f"number {task.queue.position} in line"
    if task.finished_at is not None and task.started_at is not None:
        return f"ran {seconds((task.finished_at - task.started_at).total_seconds())}"
    return ""


def _describe(task: Task) -> list[tuple[str, str]]:
    cancelling = " (cancelling)" if task.cancel_requested and not task.state.terminal else ""
    facts = [("task", task.id), ("state", task.state.value + cancelling), ("progress", _progress(task))]
    if task.wake is not None:
        facts.append(("waking", f"{phase_label(task.wake.phase)}, about {seconds(task.wake.eta_s)} left"))
    if task.error is not None:
        facts.append(
            (
                "error",
                f"{task.error.message} ({task.error.code}, attempt {task.error.attempt or task.attempt})",
            )
        )
    facts += [("input", ", ".join(f"{name}={_short(value)}" for name, value in (task.input or {}).items()))]
    facts += [("metadata", ", ".join(f"{name}={value}" for name, value in task.metadata.items()))]
    facts.append(("attempts", f"{task.attempt}, {task.strikes} failed, {task.releases} released"))
    for name, at in (
        ("submitted", task.created_at),
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
        ("file", f"{artifact.name}  {size(artifact.size_bytes)}  {artifact.sha256[:12]}…")
        for artifact in task.artifacts
    ]
    return [(name, value) for name, value in facts if value]


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 80 else text[:77] + "…"
