"""``daybreak pools``: the pools, their queues or requests, and their groups."""

from __future__ import annotations

import json
from collections import Counter
from typing import Annotated

import typer

from daybreak.cli.exit_codes import report_errors
from daybreak.cli.global_options import global_options
from daybreak.cli.options import JsonOption
from daybreak.cli.output import Output, seconds
from daybreak.cli.timeline import phase_label, ranks
from daybreak.wire import Pool, PoolGroup, PoolSessions
from daybreak.wire.pools import NOT_WAKING


def pools(
    context: typer.Context,
    name: Annotated[
        str | None, typer.Argument(help="Show one pool, with all its groups and the fields of its input.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Show the pools: their tasks or requests, their groups, and how far a wake has come.

    Examples:

    $ daybreak pools

    $ daybreak pools video --json | jq .input_schema
    """
    output = Output(as_json=as_json)
    with report_errors(output), global_options(context).client() as client:
        shown = (client.pool(name),) if name is not None else client.pools()
        if as_json:
            for pool in shown:
                output.json(pool.to_json())
        elif name is not None:
            _print_pool(output, shown[0])
        else:
            output.table(
                ("pool", "workload", "kind", "queued", "running", "requests", "groups", "wake"),
                [_row(pool) for pool in shown],
            )
            for pool in shown:
                if pool.condition is not None and pool.condition.message:
                    output.note(f"{pool.name} has a problem: {pool.condition.message}")


def _row(pool: Pool) -> tuple[str, ...]:
    wake = pool.wake.phase if pool.wake.phase in NOT_WAKING else phase_label(pool.wake.phase)
    tasks, running = str(pool.queued + pool.delayed), str(pool.running)
    requests = "-" if pool.requests is None else str(pool.requests)
    return (pool.name, pool.workload, pool.kind, tasks, running, requests, _groups(pool), wake)


def _wake_words(name: str) -> str:
    return "total" if name == "total_s" else phase_label(name.removesuffix("_s"))


def _groups(pool: Pool) -> str:
    states = Counter(group.state for group in pool.groups)
    return ", ".join(f"{count} {state}" for state, count in sorted(states.items())) or "none"


def _activity(group: PoolGroup) -> tuple[str, ...]:
    """The tasks, requests or sessions of a group, or the phase of its start."""
    if group.load is not None and group.phase is None and group.endpoint is None and group.capacity is None:
        return (f"{group.load.sessions} sessions",)
    if group.load is not None and group.phase is None:
        held = group.load.in_flight + group.load.waiting
        return (f"{held} requests" if group.capacity is None else f"{held} of {group.capacity} requests",)
    if group.tasks:
        return (", ".join(group.tasks),)
    parts = [phase_label(group.phase)] if group.phase else []
    parts += [group.detail] if group.detail else []
    return (": ".join(parts),) if parts else ()


def _work(pool: Pool) -> str:
    """The pool's tasks, requests or sessions, in words."""
    if pool.sessions is not None:
        return _sessions(pool, pool.sessions)
    if pool.requests is None:
        return f"{pool.queued} queued, {pool.delayed} delayed, {pool.running} running"
    waiting = "" if pool.requests_waiting is None else f", {pool.requests_waiting} of them waiting"
    needed = "" if pool.groups_needed is None else f"; they need {pool.groups_needed} group(s)"
    return f"{pool.requests} requests{waiting}{needed}"


def _sessions(pool: Pool, sessions: PoolSessions) -> str:
    waiting = f", {sessions.waiting} of them without a group" if sessions.waiting else ""
    longer = f", turns of {sessions.latency_multiplier} blocks" if sessions.latency_multiplier > 1 else ""
    full = ", full" if sessions.full else ""
    return (
        f"{sessions.open} sessions{waiting}; they need {pool.groups_needed} group(s); "
        f"lag {sessions.lag_ms / 1000:.2f} s{longer}{full}"
    )


def _print_pool(output: Output, pool: Pool) -> None:
    output.line(f"{pool.name} ({pool.workload}, {pool.kind}): {_work(pool)}")
    if pool.oldest_wait_s is not None:
        output.line(f"the oldest queued task has waited {seconds(pool.oldest_wait_s)}")
    if pool.routing is not None:
        output.line(f"routing policy: {pool.routing}")
    output.line(f"groups: {_groups(pool)}; {pool.groups_wanted} wanted, at most {pool.groups_max}")
    if pool.condition is not None and pool.condition.message:
        output.line(f"problem: {pool.condition.message}")
    if pool.wake.phase not in NOT_WAKING:
        eta = "" if pool.wake.eta_s is None else f", about {seconds(pool.wake.eta_s)} left"
        output.line(f"waking: {phase_label(pool.wake.phase)}{eta}")
    for group in pool.groups:
        output.line("  ".join(("", group.id, group.state, ranks(group.ranks), *_activity(group))))
    if pool.wake.last:
        durations = ", ".join(f"{_wake_words(name)} {seconds(s)}" for name, s in pool.wake.last.items())
        output.line(f"last wake: {durations}")
    fields = pool.input_schema.get("properties")
    if isinstance(fields, dict) and fields:
        output.line("input:")
        for field, schema in fields.items():
            default = (
                f" (default {json.dumps(schema['default'])})" if schema.get("default") is not None else ""
            )
            output.line(f"  {field:<16} {schema.get('description', '')}{default}")
