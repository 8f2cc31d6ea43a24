"""Prints how a task ended: its file, the time by phase, and what to do next."""

from __future__ import annotations

from pathlib import Path

from daybreak.cli.destinations import OUT, Destination, DownloadedFile
from daybreak.cli.exit_codes import EXIT_OF_STATE, Exit
from daybreak.cli.output import Output, seconds, size
from daybreak.cli.timeline import Timeline
from daybreak.sync import Client
from daybreak.wire import Artifact, Task, TaskState

KIND_ORDER = ("video", "audio", "image")
DEADLINE_REASONS = {
    "start_within": "its start_within_s deadline passed",
    "run_within": "its run_within_s deadline passed",
}


def main_artifact(task: Task) -> Artifact | None:
    """The artifact that the user most likely wants: a video, else audio, else an image; JSON comes last."""

    def rank(artifact: Artifact) -> int:
        kind = artifact.content_type.partition("/")[0]
        if artifact.content_type == "application/json":
            return len(KIND_ORDER) + 1
        return KIND_ORDER.index(kind) if kind in KIND_ORDER else len(KIND_ORDER)

    return min(task.artifacts, key=rank, default=None)


def default_path(task: Task, artifact: Artifact) -> Path:
    """Where an artifact goes without ``-o``: ``out/<id>`` with the artifact's extension."""
    return OUT / f"{task.id}{Path(artifact.name).suffix}"


def download_main_artifact(client: Client, task: Task, destination: Destination) -> DownloadedFile | None:
    """Download the task's main artifact. Returns ``None`` if the task has no artifacts."""
    artifact = main_artifact(task)
    if artifact is None:
        return None
    return destination.download(client, task, artifact, default=default_path(task, artifact))


def report(output: Output, task: Task, timeline: Timeline, file: DownloadedFile | None) -> Exit:
    """Print how the task ended. Returns the exit code."""
    code = EXIT_OF_STATE[task.state]
    if output.as_json:
        phases = {name: round(took, 3) for name, took in timeline.spent.items()}
        result = {"task": task.to_json(), "phases_s": phases}
        output.json(result | ({"file": str(file.path)} if file is not None else {}))
        return code
    _print_phases(output, timeline)
    if code is not Exit.OK:
        output.note(f"{task.id} {task.state.value}{_reason(task, timeline)}", style="bold red")
        output.note(f"next: daybreak tasks show {task.id}  ·  daybreak tasks replay {task.id}", style="dim")
        return code
    if file is not None:
        if file.path is not None:
            output.file(file.path)
        output.note(f"{size(file.artifact.size_bytes)}, SHA-256 verified", style="dim")
    gpu = f", {task.usage.gpu_seconds:.1f} GPU-seconds" if task.usage else ""
    output.note(f"{task.id} succeeded{gpu}", style="bold green")
    files = len(task.artifacts)
    whole = f" (all {files} files)" if files > 1 else ""
    output.note(
        f"next: daybreak tasks show {task.id}  ·  daybreak tasks download {task.id}{whole}", style="dim"
    )
    return code


def _reason(task: Task, timeline: Timeline) -> str:
    # A cancelled or expired task may carry the error of an earlier attempt, but that error did not end the task.
    if task.state is TaskState.FAILED and task.error is not None:
        return f": {task.error.message} ({task.error.code})"
    if timeline.reason in DEADLINE_REASONS:
        return f": {DEADLINE_REASONS[timeline.reason]}"
    return f" ({timeline.reason})" if timeline.reason else ""


def _print_phases(output: Output, timeline: Timeline) -> None:
    phases = timeline.phases()
    if not phases:
        return
    width = max(len(name) for name, _ in phases)
    for name, took in phases:
        output.note(f"  {name:<{width}}  {seconds(took):>12}")
    output.note(f"  {'total':<{width}}  {seconds(sum(took for _, took in phases)):>12}")
