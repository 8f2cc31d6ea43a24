"""``daybreak generate`` and ``daybreak submit``: hand a task in, follow it, fetch its file."""

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
from daybreak.cli.destinations import Place
from daybreak.cli.exit_codes import Exit, UsageError, reporting
from daybreak.cli.follow import Follow
from daybreak.cli.output import Output
from daybreak.cli.session import session_of
from daybreak.cli.summary import bring, report
from daybreak.core import targets
from daybreak.errors import DaybreakError, InvalidInputError
from daybreak.sync import Client
from daybreak.wire import Priority, Task, TaskState


@dataclass(frozen=True)
class Terms:
    """How a task is handed in, and what happens with it."""

    priority: Priority
    start_within_s: float | None
    run_within_s: float | None
    out: Place
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
        place = Place.of(out, as_json=as_json)
        own = (parse_metadata(metadata), parse_time(start_at), max_strikes, idempotency_key)
        terms = Terms(priority, start_within, run_within, place, previews, detach, *own)
        _hand_in(context, output, pool, body, terms)


def submit(
    context: typer.Context,
    pool: Annotated[str, typer.Argument(help="Who does it: one of `daybreak pools`.", show_default=False)],
    values: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="KEY=VALUE",
            help="The input: values as JSON or as text. JSON in quotes is text, too: '\"42\"'.",
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
    """Hand any pool a task, follow it, and fetch its file.

    `daybreak pools POOL` shows what a pool takes.
    Ctrl-C asks the server to cancel and waits until it has; a second Ctrl-C leaves at once.

    Examples:

    $ daybreak submit echo message=hello steps=5 step_s=0.2

    $ daybreak submit echo message='"42"'

    $ daybreak submit video prompt="a red circle moving left" --detach
    """
    output = Output(as_json=as_json)
    with reporting(output):
        place = Place.of(out, as_json=as_json)
        own = (parse_metadata(metadata), parse_time(start_at), max_strikes, idempotency_key)
        terms = Terms(priority, start_within, run_within, place, previews, detach, *own)
        _hand_in(context, output, pool, parse_values(values or []), terms)


def parse_values(values: list[str]) -> dict[str, Any]:
    """``["steps=5", "message=hi"]`` → ``{"steps": 5, "message": "hi"}``. Raises ``UsageError``."""
    body: dict[str, Any] = {}
    for value in values:
        name, separator, text = value.partition("=")
        if not name or not separator:
            raise UsageError(f"{value!r} is not KEY=VALUE, such as steps=5")
        body[name] = _parse_value(name, text)
    return body


def _parse_value(name: str, text: str) -> Any:
    def refuse(word: str) -> None:
        raise UsageError(f"{name}={text}: JSON has no number {word}; {_as_text(name, text)}")

    try:
        return json.loads(text, parse_constant=refuse)
    except RecursionError as error:
        raise UsageError(f"{name} is nested too deeply") from error
    except ValueError:
        return text


def _as_text(name: str, text: str) -> str:
    return f"for text write {name}={shlex.quote(json.dumps(text, ensure_ascii=False))}"


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
    if not terms.detach:
        _check_places(terms)
    with session_of(context).client() as client, _advising(client, pool, body):
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
            _tell_detached(output, task, terms)
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
    with _saying_where_it_is(output, ended):
        file = bring(client, ended, terms.out) if ended.state is TaskState.SUCCEEDED else None
    code = report(output, ended, story, file)
    return Exit.INTERRUPTED if follow.asked and code is not Exit.OK else code


def _check_places(terms: Terms) -> None:
    """Whether what the task leaves can be written: work that cannot be kept is not begun. Raises ``OSError``."""
    terms.out.check("ID.mp4")
    if terms.previews is not None:
        targets.check(terms.previews / "step-0000.webp", "step-0000.webp")


@contextmanager
def _saying_where_it_is(output: Output, task: Task) -> Iterator[None]:
    """The file stays on the server when it cannot be brought, so say how to fetch it."""
    try:
        yield
    except (DaybreakError, OSError, KeyboardInterrupt):
        output.note(f"{task.id} {task.state.value}; to fetch its files: daybreak tasks download {task.id}")
        raise


@contextmanager
def _advising(client: Client, pool: str, body: Mapping[str, Any]) -> Iterator[None]:
    """A value such as 42 is sent as a number; where the pool refuses it and wants text, say how to write that."""
    try:
        yield
    except InvalidInputError as error:
        refused = {field.field.removeprefix("input.").partition(".")[0] for field in error.fields}
        odd = [name for name in refused if name in body and not isinstance(body[name], str)]
        with suppress(DaybreakError):
            fields = client.pool(pool).input_schema.get("properties", {}) if odd else {}
            for name in sorted(odd):
                if _takes_text(fields.get(name)):
                    given = json.dumps(body[name], ensure_ascii=False)
                    error.add_note(f"{name} was read as JSON; {_as_text(name, given)}.")
        raise


def _takes_text(schema: Any) -> bool:
    if not isinstance(schema, Mapping):
        return False
    choices = [schema, *(one for one in schema.get("anyOf", ()) if isinstance(one, Mapping))]
    return any(one.get("type") == "string" for one in choices)


def _tell_detached(output: Output, task: Task, terms: Terms) -> None:
    if output.as_json:
        output.json(task.to_json())
        return
    output.line(task.id)
    place = f" NAME -o {shlex.quote(terms.out.wanted)}" if terms.out.wanted is not None else ""
    output.note(
        f"next: daybreak tasks watch {task.id}  ·  daybreak tasks download {task.id}{place}", style="dim"
    )
