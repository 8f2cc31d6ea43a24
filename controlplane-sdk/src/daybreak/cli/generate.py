"""``daybreak generate`` and ``daybreak submit``: hand a task in, follow it, fetch its file."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from daybreak.cli import options
from daybreak.cli.exits import Exit, UsageError, reporting
from daybreak.cli.finish import bring, report
from daybreak.cli.follow import Follow
from daybreak.cli.output import Output
from daybreak.cli.session import session_of
from daybreak.sync import Client
from daybreak.wire import Priority, Task, TaskState


@dataclass(frozen=True)
class Terms:
    """How a task is handed in, and what happens with it."""

    priority: Priority
    start_within_s: float | None
    run_within_s: float | None
    out: Path | None
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
    frames: Annotated[int | None, typer.Option(help="How many: 4n+1, such as 17.")] = None,
    fps: Annotated[int | None, typer.Option(help="Frames a second of the file.")] = None,
    steps: Annotated[int | None, typer.Option(help="More is slower and finer.")] = None,
    seed: Annotated[int | None, typer.Option(help="The same seed gives the same video.")] = None,
    guidance: Annotated[float | None, typer.Option(help="How closely to follow the prompt.")] = None,
    negative: Annotated[str | None, typer.Option(metavar="TEXT", help="What it should not show.")] = None,
    image: options.ImageOption = None,
    priority: options.PriorityOption = Priority.NORMAL,
    pool: Annotated[str, typer.Option(help="Who makes it; `daybreak pools` lists them.")] = "video",
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
    """Make a video from a prompt, follow every step, and fetch the file.

    Ctrl-C asks the server to cancel and waits until it has; a second Ctrl-C leaves at once.
    What is not given is the model's own default.

    Examples:

    $ daybreak generate "a red circle moving left"

    $ daybreak generate "a red circle moving left" --seed 7 -o circle.mp4

    $ daybreak generate "a blue square moving up" --detach

    $ daybreak generate "a blue square moving up" --json | jq -r .file
    """
    output = Output(as_json=as_json)
    with reporting(output):
        given = {
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
        body = {name: value for name, value in given.items() if value is not None}
        own = (parse_metadata(metadata), parse_time(start_at), max_strikes, idempotency_key)
        terms = Terms(priority, start_within, run_within, out, previews, detach, *own)
        _hand_in(context, output, pool, body, terms)


def submit(
    context: typer.Context,
    pool: Annotated[str, typer.Argument(help="Who does it: one of `daybreak pools`.", show_default=False)],
    values: Annotated[
        list[str] | None,
        typer.Argument(metavar="KEY=VALUE", help="The input: values as JSON or as text."),
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
    """Hand any pool a task, follow it, and fetch its file.

    `daybreak pools POOL` shows what a pool takes.
    Ctrl-C asks the server to cancel and waits until it has; a second Ctrl-C leaves at once.

    Examples:

    $ daybreak submit echo message=hello steps=5 step_s=0.2

    $ daybreak submit video prompt="a red circle moving left" --detach
    """
    output = Output(as_json=as_json)
    with reporting(output):
        own = (parse_metadata(metadata), parse_time(start_at), max_strikes, idempotency_key)
        terms = Terms(priority, start_within, run_within, out, previews, detach, *own)
        _hand_in(context, output, pool, parse_values(values or []), terms)


def parse_values(values: list[str]) -> dict[str, Any]:
    """``["steps=5", "message=hi"]`` → ``{"steps": 5, "message": "hi"}``. Raises ``UsageError``."""
    body: dict[str, Any] = {}
    for value in values:
        name, separator, text = value.partition("=")
        if not name or not separator:
            raise UsageError(f"{value!r} is not KEY=VALUE, such as steps=5")
        try:
            body[name] = json.loads(text)
        except ValueError:
            body[name] = text
    return body


def parse_metadata(values: list[str] | None) -> dict[str, str] | None:
    """``["user=7"]`` → ``{"user": "7"}``; values stay text. Raises ``UsageError``."""
    found: dict[str, str] = {}
    for value in values or []:
        name, separator, text = value.partition("=")
        if not name or not separator:
            raise UsageError(f"--metadata {value!r} is not KEY=VALUE, such as user=7")
        found[name] = text
    return found or None


def parse_time(text: str | None) -> datetime | None:
    """A time with a zone, as of ISO 8601. Raises ``UsageError``."""
    if text is None:
        return None
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        at = None
    if at is None or at.tzinfo is None:
        raise UsageError(f"--start-at {text!r} is not a time with a zone, such as 2026-11-21T12:00:00Z")
    return at


def _hand_in(
    context: typer.Context, output: Output, pool: str, body: Mapping[str, Any], terms: Terms
) -> None:
    with session_of(context).client() as client:
        task = client.submit(
            pool,
            body,
            priority=terms.priority,
            start_within_s=terms.start_within_s,
            run_within_s=terms.run_within_s,
            start_at=terms.start_at,
            max_strikes=terms.max_strikes,
            metadata=terms.metadata,
            idempotency_key=terms.idempotency_key,
        )
        if terms.detach:
            _tell_detached(output, task)
            return
        output.note(f"{task.id} at {client.url}", style="bold")
        code = _see_through(client, output, terms, task)
    raise typer.Exit(code)


def _see_through(client: Client, output: Output, terms: Terms, task: Task) -> Exit:
    follow = Follow(client=client, output=output, previews=terms.previews, cancel_on_interrupt=True)
    try:
        story = follow.run(task)
    except KeyboardInterrupt:
        output.note(f"left; {task.id} is asked to stop: daybreak tasks watch {task.id}")
        raise
    ended = client.get(task)
    file = bring(client, ended, terms.out) if ended.state is TaskState.SUCCEEDED else None
    code = report(output, ended, story, file)
    return Exit.INTERRUPTED if follow.asked and code is not Exit.OK else code


def _tell_detached(output: Output, task: Task) -> None:
    if output.as_json:
        output.json(task.to_json())
        return
    output.line(task.id)
    output.note(f"next: daybreak tasks watch {task.id}  ·  daybreak tasks download {task.id}", style="dim")
