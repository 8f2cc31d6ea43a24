"""``python -m verification.faults.environment``: every fault of the environment; saves ``docs/figures/faults-environment.json``."""

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
from verification.faults.options import ClusterOptions, PoolPlan
from verification.faults.registry import Lab, Scenario
from verification.results import Report, Row

ROOM = "verification.faults.environment"


def parser() -> argparse.ArgumentParser:
    """The command line."""
    known = {name: one for name, one in registry.scenarios().items() if one.room == ROOM}
    about = "\n".join(f"  {name:20} {one.about}" for name, one in known.items())
    top = argparse.ArgumentParser(
        prog="python -m verification.faults.environment",
        description=f"Networks, disks, memory, clocks and S3 that fail.\n\n{about}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    top.add_argument("names", nargs="*", metavar="NAME", help="only these; then nothing is saved")
    top.add_argument("--long", action="store_true", help="with larger counts (an hour)")
    top.add_argument(
        "--seed", type=int, default=1, help="of the order of faults and clients' calls (default 1)"
    )
    top.add_argument("--jobs", type=int, default=2, help="so many at a time: they mostly wait (default 2)")
    top.add_argument("--flavour", choices=server.FLAVOURS, default="valkey", help="the server")
    return top


def main(arguments: Sequence[str] | None = None) -> int:
    """Run them; 1 when a promise was broken."""
    logging.getLogger("daybreak").addHandler(logging.NullHandler())
    given = parser().parse_args(arguments)
    known = registry.scenarios()
    names = given.names or [name for name, one in known.items() if one.room == ROOM]
    if unknown := [name for name in names if name not in known]:
        print(f"no scenario {', '.join(unknown)}", file=sys.stderr)
        return 2
    lab = Lab(options=ClusterOptions(flavour=given.flavour), seed=given.seed, long=given.long, say=_say)
    started, rows, failed = time.monotonic(), list[Row](), list[str]()
    with ThreadPoolExecutor(given.jobs) as pool:
        for name, found, said in pool.map(lambda name: _one(known[name], lab), names):
            lab.say("\n".join(said))
            rows += found or []
            failed += [name] if found is None else []
    missed = [row.what for row in rows if row.held is False]
    if not given.names and not failed:
        lab.say(f"saved {_report(lab, given.flavour, rows).save()}")
    lab.say(f"{len(names)} in {time.monotonic() - started:.0f} s: {len(failed)} failed, {len(missed)} missed")
    for what in (*failed, *missed):
        lab.say(f"  {what}")
    return 1 if failed or any(row.broken for row in rows) else 0


def _one(one: Scenario, lab: Lab) -> tuple[str, list[Row] | None, list[str]]:
    """Run one beside others: its rows (``None``: it failed), and what it said."""
    said: list[str] = []
    try:
        return one.name, registry.run(one, replace(lab, say=said.append)), said
    except Exception as exc:  # the others are run all the same
        said.append(f"   FAILED: {type(exc).__name__}: {exc}")
        return one.name, None, said


def _say(text: str) -> None:
    print(text, flush=True)


def _report(lab: Lab, flavour: str, rows: list[Row]) -> Report:
    with FaultCluster(ClusterOptions(flavour=flavour, pools=(PoolPlan(groups=0),), gateways=0)) as cluster:
        version = server.version(cluster.port)
    return Report(
        "faults-environment-long" if lab.long else "faults-environment",
        title="Faults of the environment" + (", the promised counts" if lab.long else ""),
        about=(
            "Real gateways, groups and a real server on one machine, while what surrounds them fails: TCP proxies "
            "on their ways, a disk that forgets what was not fsynced (killing a process cannot show that), no "
            "memory, no space, clocks that step, an S3 server that errs. Each scenario has a system of its own."
        ),
        seed=lab.seed,
        extra={"server": version},
        rows=rows,
    )


if __name__ == "__main__":
    sys.exit(main())
