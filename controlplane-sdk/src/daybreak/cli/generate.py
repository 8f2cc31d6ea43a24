"""``daybreak generate`` and ``daybreak submit``: submit a task, follow it, download its file."""

from __future__ import annotations

import base64
import json
import shlex
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from daybreak.cli import options
from daybreak.cli.destinations import Destination
from daybreak.cli.exit_codes import Exit, UsageError, report_errors
from daybreak.cli.follow import TaskFollower
from daybreak.cli.global_options import global_options
from daybreak.cli.output import Output
from daybreak.cli.summary import download_main_artifact, report
from daybreak.core import targets
from daybreak.errors import DaybreakError, InvalidInputError
from daybreak.sync import Client
from daybreak.wire import Priority, Task, TaskState


@dataclass(frozen=True)
class SubmitOptions:
    """The options of ``generate`` and ``submit`` that are not part of the task's input."""

    priority: Priority
    start_within_s: float | None
    run_within_s: float | None
    out: Destination
    previews: Path | None
    detach: bool
    metadata: Mapping[str, str] | None
    start_at: datetime | None
    max_strikes: int | None
    idempotency_key: str | None


def generate(
    context: typer.Context,
    prompt: Annotated[str, typer.Argument(help="What the video shows.", show_default=False)],
    *,
    out: options.OutOption = None,
    size: Annotated[str | None, typer.Option(metavar="WxH", help="Pixels, such as 64x64.")] = None,
    frames: Annotated[int | None, typer.Option(help="Frames: 4n+1, such as 17.")] = None,
    fps: Annotated[int | None, typer.Option(help="Frames per second.")] = None,
    steps: Annotated[int | None, typer.Option(help="More steps are slower and finer.")] = None,
    seed: Annotated[int | None, typer.Option(help="The same seed gives the same video.")] = None,
    guidance: Annotated[float | None, typer.Option(help="How closely to follow the prompt.")] = None,
    negative: Annotated[str | None, typer.Option(metavar="TEXT", help="What not to show.")] = None,
    image: options.ImageOption = None,
    priority: options.PriorityOption = Priority.NORMAL,
    pool: Annotated[str, typer.Option(help="The pool to use: one of `daybreak pools`.")] = "video",
    start_within: options.StartWithin = None,
    run_within: options.RunWithin = None,
    start_at: options.StartAt = None,
    max_strikes: options.MaxStrikes = None,
    metadata: options.MetadataOption = None,
    idempotency_key: options.IdempotencyKey = None,
    previews: options.PreviewsOption = None,
    detach: options.DetachOption = False,
    as_json: options.JsonOption = False,
) -> None:
    """Generate a video from a prompt, follow every step, and download the file.

    Ctrl-C cancels the task and waits for its end; a second Ctrl-C exits at once.
    The model has a default for every option that you leave out.

    Examples:

    $ daybreak generate "a red circle moving left"

    $ daybreak generate "a red circle moving left" --seed 7 -o circle.mp4

    $ daybreak generate "a blue square moving up" --detach

    $ daybreak generate "a blue square moving up" --json | jq -r .file
    """
    output = Output(as_json=as_json)
    with report_errors(output):
        values = {
            "prompt": prompt,
            "negative_prompt": negative,
            "size": size,
            "frames": frames,
            "fps": fps,
            "steps": steps,
            "guidance": guidance,
            "seed": seed,
            "image": base64.b64encode(image.read_bytes()).decode() if image is not None else None,
        }
        inputs = {name: value for name, value in values.items() if value is not None}
        destination = Destination.of(out, as_json=as_json)
        more = (parse_metadata(metadata), parse_time(start_at), max_strikes, idempotency_key)
        submit_options = SubmitOptions(
            priority, start_within, run_within, destination, previews, detach, *more
        )
        _submit(context, output, pool, inputs, submit_options)


def submit(
    context: typer.Context,
    pool: Annotated[str, typer.Argument(help="The pool: one of `daybreak pools`.", show_default=False)],
    values: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="KEY=VALUE",
            help="The input. A value is JSON if it parses as JSON, else text; '\"42\"' is the text 42.",
        ),
    ] = None,
    *,
    out: options.OutOption = None,
    priority: options.PriorityOption = Priority.NORMAL,
    start_within: options.StartWithin = None,
    run_within: options.RunWithin = None,
    start_at: options.StartAt = None,
    max_strikes: options.MaxStrikes = None,
    metadata: options.MetadataOption = None,
    idempotency_key: options.IdempotencyKey = None,
    previews: options.PreviewsOption = None,
    detach: options.DetachOption = False,
    as_json: options.JsonOption = False,
) -> None:
    """Submit a task to any pool, follow it, and download its file.

    `daybreak pools POOL` shows the input of a pool.
    Ctrl-C cancels the task and waits for its end; a second Ctrl-C exits at once.

    Examples:

    $ daybreak submit echo message=hello steps=5 step_s=0.2

    $ daybreak submit echo message='"42"'

    $ daybreak submit video prompt="a red circle moving left" --detach
    """
    output = Output(as_json=as_json)
    with report_errors(output):
        destination = Destination.of(out, as_json=as_json)
        more = (parse_metadata(metadata), parse_time(start_at), max_strikes, idempotency_key)
        submit_options = SubmitOptions(
            priority, start_within, run_within, destination, previews, detach, *more
        )
        _submit(context, output, pool, parse_values(values or []), submit_options)


def parse_values(values: list[str]) -> dict[str, Any]:
    """``["steps=5", "message=hi"]`` → ``{"steps": 5, "message": "hi"}``. Raises ``UsageError``."""
    inputs: dict[str, Any] = {}
    for value in values:
        name, separator, text = value.partition("=")
        if not name or not separator:
            raise UsageError(f"{value!r} is not KEY=VALUE, such as steps=5")
        inputs[name] = _parse_value(name, text)
    return inputs


def _parse_value(name: str, text: str) -> Any:
    def reject(constant: str) -> None:
        raise UsageError(f"{name}={text}: JSON has no number {constant}; {_as_text(name, text)}")

    try:
        return json.loads(text, parse_constant=reject)
    except RecursionError as error:
        raise UsageError(f"{name} is nested too deeply") from error
    except ValueError:
        return text


def _as_text(name: str, text: str) -> str:
    return f"for text, write {name}={shlex.quote(json.dumps(text, ensure_ascii=False))}"


def parse_metadata(values: list[str] | None) -> dict[str, str] | None:
    """``["user=7"]`` → ``{"user": "7"}``; values stay text. Raises ``UsageError``."""
    metadata: dict[str, str] = {}
    for value in values or []:
        name, separator, text = value.partition("=")
        if not name or not separator:
            raise UsageError(f"--metadata {value!r} is not KEY=VALUE, such as user=7")
        metadata[name] = text
    return metadata or None


def parse_time(text: str | None) -> datetime | None:
    """An ISO 8601 time with a time zone. Raises ``UsageError``."""
    if text is None:
        return None
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        at = None
    if at is None or at.tzinfo is None:
        raise UsageError(f"--start-at {text!r} is not a time with a time zone, such as 2026-11-21T12:00:00Z")
    return at


def _submit(
    context: typer.Context,
    output: Output,
    pool: str,
    inputs: Mapping[str, Any],
    submit_options: SubmitOptions,
) -> None:
    if not submit_options.detach:
        _check_destinations(submit_options)
    with global_options(context).client() as client, _explain_text_values(client, pool, inputs):
        task = client.submit(
            pool,
            inputs,
            priority=submit_options.priority,
            start_within_s=submit_options.start_within_s,
            run_within_s=submit_options.run_within_s,
            start_at=submit_options.start_at,
            max_strikes=submit_options.max_strikes,
            metadata=submit_options.metadata,
            idempotency_key=submit_options.idempotency_key,
        )
        if submit_options.detach:
            _print_detached(output, task, submit_options)
            return
        output.note(f"{task.id} at {client.url}", style="bold")
        code = _follow_to_end(client, output, submit_options, task)
    raise typer.Exit(code)


def _follow_to_end(client: Client, output: Output, submit_options: SubmitOptions, task: Task) -> Exit:
    follower = TaskFollower(
        client=client, output=output, previews=submit_options.previews, cancel_on_interrupt=True
    )
    try:
        timeline = follower.run(task)
    except KeyboardInterrupt:
        output.note(f"{task.id} is still being cancelled; next: daybreak tasks watch {task.id}")
        raise
    ended = client.get(task)
    with _note_how_to_download(output, ended):
        file = (
            download_main_artifact(client, ended, submit_options.out)
            if ended.state is TaskState.SUCCEEDED
            else None
        )
    code = report(output, ended, timeline, file)
    return Exit.INTERRUPTED if follower.cancel_requested and code is not Exit.OK else code


def _check_destinations(submit_options: SubmitOptions) -> None:
    """Before the task is submitted, check that its results can be written. Raises ``OSError`` if they cannot."""
    submit_options.out.check("ID.mp4")
    if submit_options.previews is not None:
        targets.check(submit_options.previews / "step-0000.webp", "step-0000.webp")


@contextmanager
def _note_how_to_download(output: Output, task: Task) -> Iterator[None]:
    """If the download fails, say how to download the files later, because they are still on the server."""
    try:
        yield
    except (DaybreakError, OSError, KeyboardInterrupt):
        output.note(
            f"{task.id} {task.state.value}; download its files with: daybreak tasks download {task.id}"
        )
        raise


@contextmanager
def _explain_text_values(client: Client, pool: str, inputs: Mapping[str, Any]) -> Iterator[None]:
    """``message=42`` is sent as a number. If the pool expects text and rejects the number, say how to write text."""
    try:
        yield
    except InvalidInputError as error:
        rejected = {field.field.removeprefix("input.").partition(".")[0] for field in error.fields}
        not_text = [name for name in rejected if name in inputs and not isinstance(inputs[name], str)]
        with suppress(DaybreakError):
            fields = client.pool(pool).input_schema.get("properties", {}) if not_text else {}
            for name in sorted(not_text):
                if _accepts_text(fields.get(name)):
                    text = json.dumps(inputs[name], ensure_ascii=False)
                    error.add_note(f"{name} was read as JSON; {_as_text(name, text)}.")
        raise


def _accepts_text(schema: Any) -> bool:
    if not isinstance(schema, Mapping):
        return False
    choices = [schema, *(choice for choice in schema.get("anyOf", ()) if isinstance(choice, Mapping))]
    return any(choice.get("type") == "string" for choice in choices)


def _print_detached(output: Output, task: Task, submit_options: SubmitOptions) -> None:
    if output.as_json:
        output.json(task.to_json())
        return
    output.line(task.id)
    path = submit_options.out.path
    arguments = f" NAME -o {shlex.quote(path)}" if path is not None else ""
    output.note(
        f"next: daybreak tasks watch {task.id}  ·  daybreak tasks download {task.id}{arguments}", style="dim"
    )
