"""The end of a task that somebody waited for: its files, where the time went, what to try next."""

from __future__ import annotations

from pathlib import Path

from daybreak.cli.destinations import OUT, Brought, Place
from daybreak.cli.exit_codes import OF_STATE, Exit
from daybreak.cli.output import Output, seconds, size
from daybreak.cli.timeline import Story
from daybreak.sync import Client
from daybreak.wire import Artifact, Task, TaskState

KINDS = ("video", "audio", "image")
DEADLINES = {
    "start_within": "its start_within_s deadline passed",
    "run_within": "its run_within_s deadline passed",
}


def main_artifact(task: Task) -> Artifact | None:
    """The file that the user asked for: a video before a picture, and those before notes about them."""

    def rank(artifact: Artifact) -> int:
        kind = artifact.content_type.partition("/")[0]
        if artifact.content_type == "application/json":
            return len(KINDS) + 1
        return KINDS.index(kind) if kind in KINDS else len(KINDS)

    return min(task.artifacts, key=rank, default=None)


def target_of(task: Task, artifact: Artifact, wanted: Path | None) -> Path:
    """Where the file goes: ``-o`` (a file or a folder), or ``out/<id>`` with the artifact's ending."""
    if wanted is not None:
        return wanted
    return OUT / f"{task.id}{Path(artifact.name).suffix}"


def bring(client: Client, task: Task, place: Place) -> Brought | None:
    """Download the task's main artifact; ``None`` when it left none."""
    artifact = main_artifact(task)
    if artifact is None:
        return None
    return place.bring(client, task, artifact, default=target_of(task, artifact, None))


def report(output: Output, task: Task, story: Story, file: Brought | None) -> Exit:
    """Tell how it ended. Gives the exit code."""
    code = OF_STATE[task.state]
    if output.as_json:
        phases = {name: round(took, 3) for name, took in story.spent.items()}
        answer = {"task": task.to_json(), "phases_s": phases}
        output.json(answer | ({"file": str(file.path)} if file is not None else {}))
        return code
    _phases(output, story)
    if code is not Exit.OK:
        output.note(f"{task.id} {task.state.value}{_why(task, story)}", style="bold red")
        output.note(f"next: daybreak tasks show {task.id}  ·  daybreak tasks replay {task.id}", style="dim")
        return code
    if file is not None:
        if file.path is not None:
            output.file(file.path)
        output.note(f"{size(file.artifact.size_bytes)}, SHA-256 checked", style="dim")
    gpu = f", {task.usage.gpu_seconds:.1f} GPU-seconds" if task.usage else ""
    output.note(f"{task.id} succeeded{gpu}", style="bold green")
    output.note(f"next: daybreak tasks show {task.id}  ·  daybreak tasks download {task.id}", style="dim")
    return code


def _why(task: Task, story: Story) -> str:
    # A task that was cancelled or expired may carry the error of an earlier attempt: that did not end it.
    if task.state is TaskState.FAILED and task.error is not None:
        return f": {task.error.message} ({task.error.code})"
    if story.reason in DEADLINES:
        return f": {DEADLINES[story.reason]}"
    return f" ({story.reason})" if story.reason else ""


def _phases(output: Output, story: Story) -> None:
    phases = story.phases()
    if not phases:
        return
    width = max(len(name) for name, _ in phases)
    for name, took in phases:
        output.note(f"  {name:<{width}}  {seconds(took):>12}")
    output.note(f"  {'in all':<{width}}  {seconds(sum(took for _, took in phases)):>12}")
