"""``python -m verification.faults.environment``: inject faults of the network, disk, memory, clocks and S3.

A run of all scenarios saves ``docs/figures/faults-environment.json``.
"""

from __future__ import annotations

import argparse
import logging
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from verification.faults import registry, server
from verification.faults.cluster import FaultCluster
from verification.faults.options import ClusterOptions, PoolOptions
from verification.faults.registry import Scenario, ScenarioContext
from verification.results import Report, Row

PACKAGE = "verification.faults.environment"


def parser() -> argparse.ArgumentParser:
    """The command line."""
    known = {name: entry for name, entry in registry.scenarios().items() if entry.package == PACKAGE}
    about = "\n".join(f"  {name:20} {entry.about}" for name, entry in known.items())
    top = argparse.ArgumentParser(
        prog="python -m verification.faults.environment",
        description=f"Injects faults of the network, disk, memory, clocks and S3.\n\n{about}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    top.add_argument("names", nargs="*", metavar="NAME", help="run only these and save nothing")
    top.add_argument("--long", action="store_true", help="use larger counts (takes an hour)")
    top.add_argument(
        "--seed", type=int, default=1, help="seed of the faults and of the clients' calls (default 1)"
    )
    top.add_argument("--jobs", type=int, default=2, help="scenarios that run at once (default 2)")
    top.add_argument("--flavour", choices=server.FLAVOURS, default="valkey", help="which server to start")
    return top


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the scenarios. :returns: 1 when a promise was broken."""
    logging.getLogger("daybreak").addHandler(logging.NullHandler())
    args = parser().parse_args(arguments)
    known = registry.scenarios()
    names = args.names or [name for name, entry in known.items() if entry.package == PACKAGE]
    if unknown := [name for name in names if name not in known]:
        print(f"unknown scenario: {', '.join(unknown)}. Choose from: {', '.join(known)}", file=sys.stderr)
        return 2
    context = ScenarioContext(
        options=ClusterOptions(flavour=args.flavour), seed=args.seed, long=args.long, log=_print
    )
    started, rows, failed = time.monotonic(), list[Row](), list[str]()
    with ThreadPoolExecutor(args.jobs) as pool:
        for name, rows_or_none, messages in pool.map(lambda name: _run_quietly(known[name], context), names):
            context.log("\n".join(messages))
            rows += rows_or_none or []
            failed += [name] if rows_or_none is None else []
    missed = [row.what for row in rows if row.held is False]
    if not args.names and not failed:
        context.log(f"saved {_report(context, args.flavour, rows).save()}")
    context.log(
        f"{len(names)} scenarios in {time.monotonic() - started:.0f} s: {len(failed)} failed, {len(missed)} missed"
    )
    for what in (*failed, *missed):
        context.log(f"  {what}")
    return 1 if failed or any(row.broken for row in rows) else 0


def _run_quietly(scenario: Scenario, context: ScenarioContext) -> tuple[str, list[Row] | None, list[str]]:
    """Run a scenario beside others. :returns: its name, its rows (``None`` when it failed) and its log."""
    messages: list[str] = []
    try:
        return scenario.name, registry.run(scenario, replace(context, log=messages.append)), messages
    except Exception as exc:  # the others still run
        messages.append(f"   FAILED: {type(exc).__name__}: {exc}")
        return scenario.name, None, messages


def _print(text: str) -> None:
    print(text, flush=True)


def _report(context: ScenarioContext, flavour: str, rows: list[Row]) -> Report:
    with FaultCluster(ClusterOptions(flavour=flavour, pools=(PoolOptions(groups=0),), gateways=0)) as cluster:
        version = server.version(cluster.port)
    return Report(
        "faults-environment-long" if context.long else "faults-environment",
        title="Faults of the environment" + (", the promised counts" if context.long else ""),
        about=(
            "Real gateways, groups and a real server run on one machine while their environment fails: the network "
            "between them (TCP proxies), the disk (it loses what was not fsynced, or it is full), memory, clocks and "
            "an S3 server. Each scenario has its own cluster. `Server` means Valkey."
        ),
        seed=context.seed,
        extra={"server": version},
        rows=rows,
    )


if __name__ == "__main__":
    sys.exit(main())
