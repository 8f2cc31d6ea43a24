"""``daybreak models …``: register, list, show and delete the models that workers serve."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager

import typer

from daybreak.cli import model_options as options
from daybreak.cli.exit_codes import Exit, UsageError, report_errors
from daybreak.cli.generate import parse_values
from daybreak.cli.global_options import global_options
from daybreak.cli.options import JsonOption
from daybreak.cli.output import Output, seconds, size
from daybreak.errors import AuthError, ConflictError, DaybreakError, InvalidInputError
from daybreak.sync import Client
from daybreak.wire import Model, ModelState, WorkerModel

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="rich",
    help="Register, list, show and delete the models that workers serve.",
)
_SIZE = re.compile(r"(\d+(?:\.\d+)?) ?([kmgt]?)(i?)b?", re.IGNORECASE)
_PREFIXES = ("", "k", "m", "g", "t")
_NO_STATE = "pool"
"""What the column ``state`` shows for a model that a pool serves: such a model has no state."""


@app.command()
def register(
    context: typer.Context,
    alias: options.NewAlias,
    source: options.SourceArgument,
    *,
    engine: options.EngineOption = None,
    arg: options.ArgOption = None,
    memory: options.MemoryOption = None,
    gpus: options.GpusOption = None,
    replicas: options.ReplicasOption = None,
    min_replicas: options.MinReplicasOption = None,
    target_load: options.TargetLoadOption = None,
    idle: options.IdleOption = None,
    fallback: options.FallbackOption = None,
    wait: options.WaitOption = False,
    as_json: JsonOption = False,
) -> None:
    """Register a model. A worker that has the model's engine starts the model at the first request, or at once with
    --min-replicas.

    Examples:

    $ daybreak models register small Qwen/Qwen3-0.6B

    $ daybreak models register big Qwen/Qwen3-32B --memory 70GB --min-replicas 1 --fallback small --wait

    $ daybreak models register tiny /models/tiny.gguf --engine llama.cpp --arg ctx_size=4096 --replicas 4
    """
    output = Output(as_json=as_json)
    with report_errors(output), global_options(context).client() as client, _with_hints(alias):
        if wait and not min_replicas:
            raise UsageError(
                "--wait needs --min-replicas 1 or more: without it, the model starts with its first request"
            )
        model = client.models.register(
            alias,
            source,
            engine=engine,
            args=parse_values(arg) if arg else None,
            memory_bytes=parse_size(memory) if memory is not None else None,
            gpus=gpus,
            replicas=replicas or min_replicas or None,
            min_replicas=min_replicas,
            target_load=target_load,
            idle_s=idle,
            fallback=fallback,
        )
        if not wait:
            _print_registered(output, model)
            return
        model = _wait(client, output, alias)
        if as_json:
            output.json(model.to_json())
        if model.state is ModelState.FAILED:
            _print_last_lines(output, client, alias)
            raise typer.Exit(Exit.TASK_FAILED)


@app.command("list")
def list_models(context: typer.Context, as_json: JsonOption = False) -> None:
    """List the models: their state, their replicas (ready/wanted), their workers, and why they are not ready.

    Examples:

    $ daybreak models list

    $ daybreak models list --json | jq -r 'select(.state == "failed") | .id'
    """
    output = Output(as_json=as_json)
    with report_errors(output), global_options(context).client() as client:
        models = client.models.list()
        if as_json:
            for model in models:
                output.json(model.to_json())
            return
        output.table(("model", "state", "replicas", "workers", "reason"), [_row(model) for model in models])
        if not models:
            output.note("no models; try: daybreak models register small Qwen/Qwen3-0.6B", style="dim")


@app.command()
def show(context: typer.Context, alias: options.Alias, as_json: JsonOption = False) -> None:
    """Show a model: its state and the reason, its replicas, its options, and the last output of an engine that failed.

    Example:

    $ daybreak models show small
    """
    output = Output(as_json=as_json)
    with report_errors(output), global_options(context).client() as client:
        model = client.models.get(alias)
        if as_json:
            output.json(model.to_json())
            return
        for name, value in _describe(model):
            output.line(f"{name:<12} {value}")
        if model.state is not None and model.state is not ModelState.READY:
            _print_last_lines(output, client, alias)


@app.command()
def delete(context: typer.Context, alias: options.Alias, as_json: JsonOption = False) -> None:
    """Delete a model. Its replicas take no more requests, finish those that they have, and stop.

    Example:

    $ daybreak models delete small
    """
    output = Output(as_json=as_json)
    with report_errors(output), global_options(context).client() as client, _with_hints(alias):
        client.models.delete(alias)
        if as_json:
            output.json({"id": alias, "deleted": True})
        else:
            output.note(f"{alias} is deleted; its replicas finish their requests", style="bold green")


def parse_size(text: str) -> int:
    """Convert a size such as ``16GB``, ``14.5GiB`` or ``1000000`` to bytes. Raises ``UsageError``."""
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise UsageError(f"--memory {text!r} is not a size such as 16GB, 14.5GiB or 16000000000")
    unit = 1024.0 if match[3] else 1000.0
    return round(float(match[1]) * math.pow(unit, _PREFIXES.index(match[2].lower())))


@contextmanager
def _with_hints(alias: str) -> Iterator[None]:
    """Add to an error what the user can do about it."""
    try:
        yield
    except AuthError as error:
        error.add_note("Set DAYBREAK_API_KEY to the workers.token or the admin.token of the server.")
        raise
    except ConflictError as error:
        error.add_note(f"`daybreak models show {alias}` shows it.")
        raise
    except InvalidInputError as error:
        error.add_note("See `daybreak models register --help`.")
        raise


def _wait(client: Client, output: Output, alias: str) -> Model:
    """Write the progress of a model's start to stderr. Returns the model once it is ready or has failed."""
    began, words, model = time.monotonic(), "", None
    for model in client.models.watch(alias):
        if (now := _progress(model)) != words:
            words = now
            style = {ModelState.READY: "bold green", ModelState.FAILED: "bold red"}.get(model.state)  # type: ignore[arg-type]
            output.note(f"{seconds(time.monotonic() - began):>12}  {words}", style=style)
    if model is None:
        raise DaybreakError(f"the model {alias} cannot be read")
    return model


def _progress(model: Model) -> str:
    state = model.state.value if model.state is not None else _NO_STATE
    left = model.wake.eta_s if model.wake is not None else None
    estimate = "" if not left else f" (about {seconds(round(left))} left)"
    return f"{model.id} is {state}" + (f": {model.reason}" if model.reason else "") + estimate


def _print_registered(output: Output, model: Model) -> None:
    if output.as_json:
        output.json(model.to_json())
        return
    output.note(_progress(model), style="bold")
    output.note(f"next: daybreak models show {model.id}", style="dim")


def _row(model: Model) -> tuple[str, ...]:
    state = model.state.value if model.state is not None else _NO_STATE
    return (model.id, state, _replicas(model), ", ".join(model.workers or ()) or "-", model.reason or "")


def _replicas(model: Model) -> str:
    return "-" if model.ready is None else f"{model.ready}/{model.wanted}"


def _describe(model: Model) -> Iterator[tuple[str, str]]:
    yield "model", model.id
    if model.pool is not None:
        yield "pool", f"{model.pool}; `daybreak pools {model.pool}` shows it"
        for pair in model.pairs or ():
            yield "languages", f"{pair.source_name} -> {pair.target_name}"
        if model.notice is not None:
            yield "notice", model.notice
        return
    state = model.state.value if model.state is not None else "unknown"
    yield "state", state + (f": {model.reason}" if model.reason else "")
    if model.wake is not None and model.wake.eta_s is not None:
        yield "ready in", f"about {seconds(model.wake.eta_s)}"
    yield "replicas", f"{model.ready} ready, {model.wanted} wanted; {model.min_replicas} to {model.replicas}"
    yield "workers", ", ".join(model.workers or ()) or "none"
    yield "engine", model.engine or "unknown"
    if model.source is not None:
        yield "source", model.source
    for name, value in (model.args or {}).items():
        yield "option", f"{name}={value}"
    memory = "of unknown size" if model.memory_bytes is None else size(model.memory_bytes)
    yield (
        "a replica",
        f"{memory}, {model.gpus} GPU{'' if model.gpus == 1 else 's'}, {model.target_load:g} requests",
    )
    if model.idle_s is not None:
        yield "stops after", f"{seconds(model.idle_s)} without requests"
    if model.fallback is not None:
        yield "fallback", model.fallback


def _print_last_lines(output: Output, client: Client, alias: str) -> None:
    """Print the last output of those engines of a model that do not run. The server sends this output only to clients
    that may change models."""
    for worker in client.workers.list():
        for replica in worker.models:
            if replica.alias == alias and replica.last_lines:
                _print_lines(output, worker.id, replica)


def _print_lines(output: Output, worker: str, replica: WorkerModel) -> None:
    output.note(f"the last lines of the engine on {worker}:", style="bold")
    for line in replica.last_lines:
        output.note(f"  {line}")
