"""``daybreak pools``: who serves, and how long the line is."""

from __future__ import annotations

import json
from collections import Counter
from typing import Annotated

import typer

from daybreak.cli.exit_codes import reporting
from daybreak.cli.options import JsonOption
from daybreak.cli.output import Output, seconds
from daybreak.cli.session import session_of
from daybreak.cli.timeline import phase_words, ranks
from daybreak.wire import Pool, PoolGroup
from daybreak.wire.pools import RESTING_PHASES


def pools(
    context: typer.Context,
    name: Annotated[
        str | None, typer.Argument(help="One pool, with all its groups and the input it takes.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Show the pools: how many tasks wait and run, who works, and where a wake is.

    Examples:

    $ daybreak pools

    $ daybreak pools video --json | jq .input_schema
    """
    output = Output(as_json=as_json)
    with reporting(output), session_of(context).client() as client:
        found = (client.pool(name),) if name is not None else client.pools()
        if as_json:
            for pool in found:
                output.json(pool.to_json())
        elif name is not None:
            _show(output, found[0])
        else:
            output.table(
                ("pool", "workload", "queued", "running", "groups", "wake"), [_row(pool) for pool in found]
            )
            for pool in found:
                if pool.condition is not None and pool.condition.message:
                    output.note(f"{pool.name} is not in order: {pool.condition.message}")


def _row(pool: Pool) -> tuple[str, ...]:
    wake = pool.wake.phase if pool.wake.phase in RESTING_PHASES else phase_words(pool.wake.phase)
    return (pool.name, pool.workload, str(pool.queued + pool.delayed), str(pool.running), _groups(pool), wake)


def _wake_words(name: str) -> str:
    return "in all" if name == "total_s" else phase_words(name.removesuffix("_s"))


def _groups(pool: Pool) -> str:
    states = Counter(group.state for group in pool.groups)
    return ", ".join(f"{count} {state}" for state, count in sorted(states.items())) or "none"


def _at(group: PoolGroup) -> tuple[str, ...]:
    """Its tasks, or how far it is on its way to one."""
    if group.tasks:
        return (", ".join(group.tasks),)
    told = [phase_words(group.phase)] if group.phase else []
    told += [group.detail] if group.detail else []
    return (": ".join(told),) if told else ()


def _show(output: Output, pool: Pool) -> None:
    output.line(
        f"{pool.name} ({pool.workload}): {pool.queued} queued, {pool.delayed} delayed, {pool.running} running"
    )
    if pool.oldest_wait_s is not None:
        output.line(f"the oldest has waited {seconds(pool.oldest_wait_s)}")
    output.line(f"groups: {_groups(pool)}; {pool.groups_wanted} wanted, at most {pool.groups_max}")
    if pool.condition is not None and pool.condition.message:
        output.line(f"not in order: {pool.condition.message}")
    if pool.wake.phase not in RESTING_PHASES:
        left = "" if pool.wake.eta_s is None else f", about {seconds(pool.wake.eta_s)} left"
        output.line(f"waking: {phase_words(pool.wake.phase)}{left}")
    for group in pool.groups:
        output.line("  ".join(("", group.id, group.state, ranks(group.ranks), *_at(group))))
    if pool.wake.last:
        took = ", ".join(f"{_wake_words(name)} {seconds(s)}" for name, s in pool.wake.last.items())
        output.line(f"latest wake: {took}")
    fields = pool.input_schema.get("properties")
    if isinstance(fields, dict) and fields:
        output.line("input:")
        for field, schema in fields.items():
            default = (
                f" (default {json.dumps(schema['default'])})" if schema.get("default") is not None else ""
            )
            output.line(f"  {field:<16} {schema.get('description', '')}{default}")
