"""``daybreak workers``: shows the workers and the models that they run."""

from __future__ import annotations

from collections import Counter

import typer

from daybreak.cli.exit_codes import report_errors
from daybreak.cli.global_options import global_options
from daybreak.cli.options import JsonOption
from daybreak.cli.output import Output, size
from daybreak.wire import Worker, WorkerModelState


def workers(context: typer.Context, as_json: JsonOption = False) -> None:
    """Show the workers: their GPUs or memory, their engines, and the models that they run.

    The column `requests/limit` says how many requests a worker answers now, and how many its ready replicas accept at
    once (the `capacity` of their engines).

    Examples:

    $ daybreak workers

    $ daybreak workers --json | jq -r '.models[] | select(.state == "failed") | .last_lines[]'
    """
    output = Output(as_json=as_json)
    with report_errors(output), global_options(context).client() as client:
        found = client.workers.list()
        if as_json:
            for worker in found:
                output.json(worker.to_json())
            return
        output.table(
            ("worker", "state", "devices", "free", "engines", "models", "requests/limit", "url"),
            [_row(worker) for worker in found],
        )
        for worker in found:
            for model in worker.models:
                if model.state is WorkerModelState.FAILED:
                    output.note(
                        f"{model.alias} on {worker.id} has failed: {model.reason or 'no reason is known'}"
                    )
        if not found:
            output.note(
                f"no workers; start one on a machine with an engine: daybreakd worker --manager-url {client.url}",
                style="dim",
            )


def _row(worker: Worker) -> tuple[str, ...]:
    requests = sum(model.requests for model in worker.models)
    capacity = sum(model.capacity for model in worker.models if model.state is WorkerModelState.READY)
    return (
        worker.id,
        "draining" if worker.draining else "ready",
        _devices(worker),
        _free(worker),
        ", ".join(worker.engines) or "none",
        _models(worker),
        f"{requests}/{capacity}",
        worker.url or "-",
    )


def _devices(worker: Worker) -> str:
    if not worker.gpus:
        return f"CPU, {size(worker.memory_bytes)}"
    kinds = Counter((gpu.name, gpu.memory_bytes) for gpu in worker.gpus)
    return ", ".join(f"{count} × {name} {size(memory)}" for (name, memory), count in kinds.items())


def _free(worker: Worker) -> str:
    if not worker.gpus:
        return size(worker.memory_free_bytes)
    return ", ".join(size(gpu.memory_free_bytes) for gpu in worker.gpus)


def _models(worker: Worker) -> str:
    counts = Counter((model.alias, model.state.value) for model in worker.models)
    shown = (
        f"{alias} {state}" + (f" × {count}" if count > 1 else "")
        for (alias, state), count in sorted(counts.items())
    )
    return ", ".join(shown) or "none"
