"""``python -m verification.faults``: inject faults into a real Daybreak without Ray and check its promises."""

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

from verification.faults import scenario_catalogue, server
from verification.faults.checker import check
from verification.faults.cluster import FaultCluster
from verification.faults.failpoints import ALL
from verification.faults.history import read
from verification.faults.options import ClusterOptions, PoolOptions
from verification.faults.scenario_catalogue import Scenario, ScenarioContext, ViolatedError
from verification.faults.scenarios import mixed_runs
from verification.results import Report, Row

_ABOUT = """\
Starts a Redis server (Valkey), gateways and groups on this machine (no Ray). Kills them with SIGKILL, at random times
and at failpoints, freezes them, cuts them off and restarts them. External clients record a history of everything
that they see. A checker decides from this history alone whether Daybreak kept its promises.

  python -m verification.faults all                      what CI runs (minutes); saves docs/figures/faults.json
  python -m verification.faults long                     long forms of all scenarios (hours); saves faults-long.json
  python -m verification.faults.environment              faults of the network, disk, memory, clocks and S3 (minutes)
  python -m verification.faults.system                   processes of `daybreakd up` die, stop or hang
  python -m verification.faults mixed --seed 7           one mixed run; the seed repeats its schedule
  python -m verification.faults scenario poison cancel   scenarios by name
  python -m verification.faults named                    every failpoint in turn
  python -m verification.faults check HISTORY            check a saved history again
  python -m verification.faults list                     list the scenarios and failpoints
"""


_failures: dict[str, str] = {}
"""Name of a scenario → why it failed in this process."""


def parser() -> argparse.ArgumentParser:
    """The command line."""
    top = argparse.ArgumentParser(
        prog="python -m verification.faults",
        description=_ABOUT,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, about in (
        ("all", "run every scenario in its short form"),
        ("long", "run every scenario in its long form, with more repeats"),
        ("named", "kill a process at every failpoint in turn"),
    ):
        command = commands.add_parser(name, help=about)
        _add_common_options(command)
        command.add_argument("--rows", type=Path, help=argparse.SUPPRESS)
        if name != "named":
            command.add_argument(
                "--save",
                default=None,
                metavar="NAME",
                help="name of the report (default: faults or faults-long)",
            )
            command.add_argument(
                "--done",
                type=Path,
                metavar="FOLDER",
                help="save results in FOLDER and skip scenarios whose result is there, to resume a run",
            )
            command.add_argument(
                "--skip", nargs="*", default=[], metavar="SCENARIO", help="leave out these scenarios"
            )
    mixed = commands.add_parser("mixed", help="run one mixed schedule of faults")
    _add_common_options(mixed)
    mixed.add_argument(
        "--seconds", type=float, default=60.0, help="seconds that the schedule takes (default 60)"
    )
    mixed.add_argument("--kills", type=int, default=80, help="processes to kill (default 80)")
    mixed.add_argument("--rate", type=float, default=3.0, help="tasks per second (default 3)")
    mixed.add_argument("--watchdogs", action="store_true", help="give leaders watchdogs, as in production")
    mixed.add_argument("--result", type=Path, help=argparse.SUPPRESS)
    mixed.add_argument(
        "--cut", type=float, default=0.05, help="chance that a stream is cut at a chunk (default 0.05)"
    )
    named = commands.add_parser("scenario", help="run scenarios by name")
    named.add_argument("names", nargs="+", metavar="NAME")
    named.add_argument("--rows", type=Path, help=argparse.SUPPRESS)
    named.add_argument("--long", action="store_true", help="run their long forms, with more repeats")
    _add_common_options(named)
    recheck = commands.add_parser("check", help="check a saved history again")
    recheck.add_argument("history", type=Path)
    commands.add_parser("list", help="list the scenarios and failpoints")
    return top


def _add_common_options(command: argparse.ArgumentParser) -> None:
    command.add_argument("--seed", type=int, default=1, help="seed of the schedules (default 1)")
    command.add_argument("--flavour", choices=server.FLAVOURS, default="valkey", help="which server to start")
    command.add_argument("--fsync", choices=server.FSYNC, default="everysec", help="the server's appendfsync")
    command.add_argument(
        "--jobs",
        type=int,
        default=None,
        metavar="N",
        help="clusters that run at once (default: 3 for `all` and `long`, else 1)",
    )
    command.add_argument(
        "--lease", type=float, default=1.5, metavar="S", help="length of a lease in seconds (default 1.5)"
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command.

    :returns: 0 on success, 1 if a promise was broken or a scenario failed, 2 for an unknown scenario, 70 if a mixed
        run could not be completed.
    """
    logging.getLogger("daybreak").addHandler(logging.NullHandler())
    args = parser().parse_args(arguments)
    if args.command == "list":
        for scenario in scenario_catalogue.scenarios().values():
            print(f"{scenario.name:20} {scenario.about}")
        print("\nfailpoints:")
        for point, where in ALL.items():
            print(f"  {point:24} {where}")
        return 0
    if args.command == "check":
        verdict = check(read(args.history))
        print(verdict.text(limit=100))
        return 0 if verdict.ok else 1
    options = ClusterOptions(flavour=args.flavour, fsync=args.fsync, lease_s=args.lease)
    long = args.command == "long" or getattr(args, "long", False)
    jobs = args.jobs or (3 if args.command in ("all", "long") else 1)
    context = ScenarioContext(
        options=options, seed=args.seed, long=long, log=_print, jobs=jobs, done=getattr(args, "done", None)
    )
    if context.done is not None:
        context.done.mkdir(parents=True, exist_ok=True)
    if args.command == "mixed":
        return _mixed(context, args)
    known = scenario_catalogue.scenarios()
    default_names = [
        name for name, entry in known.items() if entry.package == "verification.faults.scenarios"
    ]
    chosen = {"named": ["named"], "scenario": getattr(args, "names", [])}.get(args.command, default_names)
    if unknown := [name for name in chosen if name not in known]:
        print(f"unknown scenario: {', '.join(unknown)}. Choose from: {', '.join(known)}", file=sys.stderr)
        return 2
    return _several(context, args, [name for name in chosen if name not in getattr(args, "skip", [])])


def _print(text: str) -> None:
    print(text, flush=True)


def _mixed(context: ScenarioContext, args: argparse.Namespace) -> int:
    try:
        outcome = mixed_runs.one_run(
            context,
            seed=args.seed,
            seconds=args.seconds,
            deaths=args.kills,
            rate=args.rate,
            cut=args.cut,
            watchdogs=args.watchdogs,
        )
    except ViolatedError as exc:
        print(exc, file=sys.stderr)
        return 1
    except Exception:
        traceback.print_exc()
        return mixed_runs.INCOMPLETE
    for name, count in sorted(outcome.kills.items()):
        print(f"{count:6} killed {name}")
    states = ", ".join(f"{count} {state}" for state, count in outcome.states.most_common())
    print(f"{outcome.deaths} kills, {outcome.tasks} tasks ({states}), {outcome.seconds:.0f} s: no violation")
    if args.result is not None:
        args.result.write_text(outcome.as_json())
    return 0


def _several(context: ScenarioContext, args: argparse.Namespace, names: Sequence[str]) -> int:
    started = time.monotonic()
    known = scenario_catalogue.scenarios()
    results: dict[str, list[Row] | None] = {}
    for name in names:
        if (saved := _load_rows(context, name)) is not None:
            results[name] = saved
        elif known[name].alone or context.jobs == 1:
            results[name] = _save_rows(context, name, _run_here(context, known[name]))
    remaining = [name for name in names if name not in results]
    with ThreadPoolExecutor(context.jobs) as pool:
        for name, rows_or_none in zip(
            remaining, pool.map(lambda name: _run_in_subprocess(context, args, name), remaining), strict=True
        ):
            results[name] = _save_rows(context, name, rows_or_none)
    failed = [name for name in names if results[name] is None]
    rows = [row for name in names for row in results[name] or ()]
    missed = [row.what for row in rows if row.held is False]
    if args.rows is not None:
        args.rows.write_text(json.dumps([asdict(row) for row in rows]))
    if args.command in ("all", "long") and not failed:
        context.log(f"saved {_report(context, args, rows).save()}")
    context.log(
        f"{len(names)} scenarios in {time.monotonic() - started:.0f} s: {len(failed)} failed, {len(missed)} missed"
    )
    for name in failed:  # repeated here because readers start at the end of the output
        context.log(f"  {name}: {_failures.get(name, 'see above')[:2000]}")
    for what in missed:
        context.log(f"  {what}")
    return 1 if failed or any(row.broken for row in rows) else 0


def _run_here(context: ScenarioContext, scenario: Scenario) -> list[Row] | None:
    """Run a scenario. :returns: its rows; ``None`` if it failed. Raises nothing, so the other scenarios still run."""
    try:
        return scenario_catalogue.run(scenario, context)
    except Exception as exc:
        frame = traceback.extract_tb(exc.__traceback__)[-1]
        failure = f"{type(exc).__name__} at {Path(frame.filename).name}:{frame.lineno}: {exc}"
        _failures[scenario.name] = failure
        context.log(f"   {scenario.name} FAILED: {failure}")
        return None


def _load_rows(context: ScenarioContext, name: str) -> list[Row] | None:
    """The rows that an earlier run saved for a scenario, if any."""
    if context.done is None or not (context.done / f"{name}.json").exists():
        return None
    return [Row(**fields) for fields in json.loads((context.done / f"{name}.json").read_text())]


def _save_rows(context: ScenarioContext, name: str, rows: list[Row] | None) -> list[Row] | None:
    if context.done is not None and rows is not None:
        (context.done / f"{name}.json").write_text(json.dumps([asdict(row) for row in rows]))
    return rows


def _run_in_subprocess(context: ScenarioContext, args: argparse.Namespace, name: str) -> list[Row] | None:
    """Run a scenario in a process of its own, beside other scenarios. The output appears when the process ends."""
    with tempfile.TemporaryDirectory() as folder:
        result = Path(folder) / "rows"
        command = [
            sys.executable,
            "-m",
            "verification.faults",
            "scenario",
            name,
            f"--rows={result}",
            f"--seed={args.seed}",
        ]
        command += [f"--flavour={args.flavour}", f"--fsync={args.fsync}", f"--lease={args.lease}"]
        command += ["--long"] * context.long
        completed = subprocess.run(command, capture_output=True, text=True, check=False, cwd=mixed_runs.HOME)
        context.log(
            "\n".join([*completed.stdout.splitlines()[:-1], *completed.stderr.splitlines()[-40:]]).rstrip()
        )
        try:
            rows = [Row(**fields) for fields in json.loads(result.read_text())]
        except (OSError, ValueError):
            return None
    return rows if completed.returncode == 0 or any(row.held is False for row in rows) else None


def _report(context: ScenarioContext, args: argparse.Namespace, rows: list[Row]) -> Report:
    with FaultCluster(
        ClusterOptions(flavour=args.flavour, pools=(PoolOptions(groups=0),), gateways=0)
    ) as cluster:
        version = server.version(cluster.port)
    name = args.save or ("faults-long" if context.long else "faults")
    return Report(
        name,
        title="Faults, the promised counts" if context.long else "Faults, as CI runs them",
        about=(
            "Real gateways, groups of one and two ranks and a real server (Valkey) run on one machine, without Ray. "
            "Each kill is a SIGKILL, and the test waits until the process is gone. External clients record every "
            "call and event, and a checker decides from that history. These kills end processes, not the machine: "
            "what a process has already written to the operating system survives."
        ),
        seed=context.seed,
        extra={
            "server": version,
            "appendfsync": args.fsync,
            "lease": f"{args.lease:g} s unless a row says otherwise",
        },
        rows=rows,
    )


if __name__ == "__main__":
    sys.exit(main())
