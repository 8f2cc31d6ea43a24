"""``python -m verification.faults``: run faults against a real Daybreak without Ray, and decide whether it kept its promises."""

from __future__ import annotations

import argparse
import json
import logging
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path

from verification.faults import registry, server
from verification.faults.checker import check
from verification.faults.cluster import FaultCluster
from verification.faults.failpoints import ALL
from verification.faults.history import read
from verification.faults.options import ClusterOptions, PoolPlan
from verification.faults.registry import Lab, Scenario, ViolatedError
from verification.faults.scenarios import runs
from verification.results import Report, Row

_ABOUT = """\
A server, gateways and groups on this machine (no Ray), killed by SIGKILL at random and at named points, frozen,
cut off, and started again; clients outside write down all they see; a checker decides from that history alone.

  python -m verification.faults all                      what CI runs, a few minutes; saves docs/figures/faults.json
  python -m verification.faults long                     the promised counts, hours; saves docs/figures/faults-long.json
  python -m verification.faults.environment              networks, disks, memory, clocks and S3 that fail, a few minutes
  python -m verification.faults.system                   a whole `daybreakd up` with Ray: its parts killed, stopped and hung
  python -m verification.faults mixed --seed 7           one mixed run; a seed repeats its schedule
  python -m verification.faults scenario poison cancel   some promises, by name
  python -m verification.faults named                    every failpoint in turn
  python -m verification.faults check HISTORY            decide a history that was kept, again
  python -m verification.faults list                     scenarios and failpoints
"""


_failed: dict[str, str] = {}
"""Why scenarios of this process failed, by name."""


def parser() -> argparse.ArgumentParser:
    """The command line."""
    top = argparse.ArgumentParser(
        prog="python -m verification.faults",
        description=_ABOUT,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, about in (
        ("all", "every scenario, in its short form"),
        ("long", "every scenario, with the promised counts"),
        ("named", "every failpoint in turn"),
    ):
        one = commands.add_parser(name, help=about)
        _common(one)
        one.add_argument("--rows", type=Path, help=argparse.SUPPRESS)
        if name != "named":
            one.add_argument(
                "--save", default=None, metavar="NAME", help="name of the report (default: as above)"
            )
            one.add_argument(
                "--done",
                type=Path,
                metavar="FOLDER",
                help="keep each result there, and take it from there: an interrupted run goes on",
            )
            one.add_argument("--skip", nargs="*", default=[], metavar="SCENARIO", help="leave these out")
    mixed = commands.add_parser("mixed", help="one mixed run")
    _common(mixed)
    mixed.add_argument("--seconds", type=float, default=60.0)
    mixed.add_argument("--kills", type=int, default=80, help="processes to kill meanwhile")
    mixed.add_argument("--rate", type=float, default=3.0, help="tasks a second")
    mixed.add_argument("--guards", action="store_true", help="leaders have guards, as in production")
    mixed.add_argument("--result", type=Path, help=argparse.SUPPRESS)
    mixed.add_argument("--cut", type=float, default=0.05, help="chance that a stream is cut before a chunk")
    some = commands.add_parser("scenario", help="some scenarios, by name")
    some.add_argument("names", nargs="+", metavar="NAME")
    some.add_argument("--rows", type=Path, help=argparse.SUPPRESS)
    some.add_argument("--long", action="store_true", help="with the promised counts")
    _common(some)
    again = commands.add_parser("check", help="decide a recorded history again")
    again.add_argument("history", type=Path)
    commands.add_parser("list", help="scenarios and failpoints")
    return top


def _common(one: argparse.ArgumentParser) -> None:
    one.add_argument("--seed", type=int, default=1, help="of the schedules (default 1)")
    one.add_argument("--flavour", choices=server.FLAVOURS, default="valkey", help="the server")
    one.add_argument("--fsync", choices=server.FSYNC, default="everysec")
    one.add_argument(
        "--jobs", type=int, default=None, metavar="N", help="systems side by side (default: `all`, `long` 3)"
    )
    one.add_argument("--lease", type=float, default=1.5, metavar="S", help="seconds of a lease (default 1.5)")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run it; 1 when a promise was broken. One mixed run: 70 when it could not be carried out."""
    logging.getLogger("daybreak").addHandler(logging.NullHandler())
    given = parser().parse_args(arguments)
    if given.command == "list":
        for one in registry.scenarios().values():
            print(f"{one.name:16} {one.about}")
        print("\nfailpoints:")
        for point, where in ALL.items():
            print(f"  {point:24} {where}")
        return 0
    if given.command == "check":
        verdict = check(read(given.history))
        print(verdict.text(limit=100))
        return 0 if verdict.ok else 1
    options = ClusterOptions(flavour=given.flavour, fsync=given.fsync, lease_s=given.lease)
    long = given.command == "long" or getattr(given, "long", False)
    jobs = given.jobs or (3 if given.command in ("all", "long") else 1)
    lab = Lab(
        options=options, seed=given.seed, long=long, say=_say, jobs=jobs, done=getattr(given, "done", None)
    )
    if lab.done is not None:
        lab.done.mkdir(parents=True, exist_ok=True)
    if given.command == "mixed":
        return _mixed(lab, given)
    known = registry.scenarios()
    own = [name for name, one in known.items() if one.room == "verification.faults.scenarios"]
    chosen = {"named": ["named"], "scenario": getattr(given, "names", [])}.get(given.command, own)
    if unknown := [name for name in chosen if name not in known]:
        print(f"no scenario {', '.join(unknown)}; there are: {', '.join(known)}", file=sys.stderr)
        return 2
    return _several(lab, given, [name for name in chosen if name not in getattr(given, "skip", [])])


def _say(text: str) -> None:
    print(text, flush=True)


def _mixed(lab: Lab, given: argparse.Namespace) -> int:
    try:
        outcome = runs.one_run(
            lab,
            seed=given.seed,
            seconds=given.seconds,
            deaths=given.kills,
            rate=given.rate,
            cut=given.cut,
            guards=given.guards,
        )
    except ViolatedError as exc:
        print(exc, file=sys.stderr)
        return 1
    except Exception:
        traceback.print_exc()
        return runs.NOT_CARRIED_OUT
    for name, count in sorted(outcome.kills.items()):
        print(f"{count:6} killed {name}")
    states = ", ".join(f"{count} {state}" for state, count in outcome.states.most_common())
    print(f"{outcome.deaths} kills, {outcome.tasks} tasks ({states}), {outcome.seconds:.0f} s: no violation")
    if given.result is not None:
        given.result.write_text(outcome.as_json())
    return 0


def _several(lab: Lab, given: argparse.Namespace, names: Sequence[str]) -> int:
    started = time.monotonic()
    known = registry.scenarios()
    done: dict[str, list[Row] | None] = {}
    for name in names:
        if (kept := _kept(lab, name)) is not None:
            done[name] = kept
        elif known[name].alone or lab.jobs == 1:
            done[name] = _keep(lab, name, _one(lab, known[name]))
    others = [name for name in names if name not in done]
    with ThreadPoolExecutor(lab.jobs) as pool:
        for name, rows_or_none in zip(
            others, pool.map(lambda name: _elsewhere(lab, given, name), others), strict=True
        ):
            done[name] = _keep(lab, name, rows_or_none)
    failed = [name for name in names if done[name] is None]
    rows = [row for name in names for row in done[name] or ()]
    missed = [row.what for row in rows if row.held is False]
    if given.rows is not None:
        given.rows.write_text(json.dumps([asdict(row) for row in rows]))
    if given.command in ("all", "long") and not failed:
        lab.say(f"saved {_report(lab, given, rows).save()}")
    lab.say(
        f"{len(names)} scenarios in {time.monotonic() - started:.0f} s: {len(failed)} failed, {len(missed)} missed"
    )
    for name in failed:  # once more where a reader begins: at the end
        lab.say(f"  {name}: {_failed.get(name, 'see above')[:2000]}")
    for what in missed:
        lab.say(f"  {what}")
    return 1 if failed or any(row.broken for row in rows) else 0


def _one(lab: Lab, one: Scenario) -> list[Row] | None:
    """A scenario's rows, or ``None`` when it failed; the others are run all the same."""
    try:
        return registry.run(one, lab)
    except Exception as exc:
        place = traceback.extract_tb(exc.__traceback__)[-1]
        _failed[one.name] = f"{type(exc).__name__} at {Path(place.filename).name}:{place.lineno}: {exc}"
        lab.say(f"   {one.name} FAILED: {_failed[one.name]}")
        return None


def _kept(lab: Lab, name: str) -> list[Row] | None:
    """The rows of a scenario that an earlier run has kept."""
    if lab.done is None or not (lab.done / f"{name}.json").exists():
        return None
    return [Row(**fields) for fields in json.loads((lab.done / f"{name}.json").read_text())]


def _keep(lab: Lab, name: str, rows: list[Row] | None) -> list[Row] | None:
    if lab.done is not None and rows is not None:
        (lab.done / f"{name}.json").write_text(json.dumps([asdict(row) for row in rows]))
    return rows


def _elsewhere(lab: Lab, given: argparse.Namespace, name: str) -> list[Row] | None:
    """The same in a process of its own, beside others; what it says comes when it is done."""
    with tempfile.TemporaryDirectory() as folder:
        result = Path(folder) / "rows"
        command = [
            sys.executable,
            "-m",
            "verification.faults",
            "scenario",
            name,
            f"--rows={result}",
            f"--seed={given.seed}",
        ]
        command += [f"--flavour={given.flavour}", f"--fsync={given.fsync}", f"--lease={given.lease}"]
        command += ["--long"] * lab.long
        ran = subprocess.run(command, capture_output=True, text=True, check=False, cwd=runs.HOME)
        lab.say("\n".join([*ran.stdout.splitlines()[:-1], *ran.stderr.splitlines()[-40:]]).rstrip())
        try:
            rows = [Row(**fields) for fields in json.loads(result.read_text())]
        except (OSError, ValueError):
            return None
    return rows if ran.returncode == 0 or any(row.held is False for row in rows) else None


def _report(lab: Lab, given: argparse.Namespace, rows: list[Row]) -> Report:
    with FaultCluster(
        ClusterOptions(flavour=given.flavour, pools=(PoolPlan(groups=0),), gateways=0)
    ) as cluster:
        version = server.version(cluster.port)
    name = given.save or ("faults-long" if lab.long else "faults")
    return Report(
        name,
        title="Faults, the promised counts" if lab.long else "Faults, as CI runs them",
        about=(
            "Real gateways, groups of real ranks and a real server on one machine, without Ray; processes end by "
            "SIGKILL and are seen gone. Clients outside write down every call and event, and a checker decides "
            "from that history. What the table says of kills holds for processes, not for the machine: a kill "
            "loses nothing that was handed to the kernel."
        ),
        seed=lab.seed,
        extra={
            "server": version,
            "appendfsync": given.fsync,
            "lease": f"{given.lease:g} s unless a row says otherwise",
        },
        rows=rows,
    )


if __name__ == "__main__":
    sys.exit(main())
