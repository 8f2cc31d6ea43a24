"""The command line of a package of scenarios. By default, it runs all scenarios and saves their report."""

from __future__ import annotations

import argparse
import logging
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

from verification.faults import scenario_catalogue, server
from verification.faults.checker import Verdict
from verification.faults.cluster import FaultCluster
from verification.faults.history import Line, read
from verification.faults.options import ClusterOptions, PoolOptions
from verification.faults.scenario_catalogue import Scenario, ScenarioContext
from verification.results import Report, Row


@dataclass(frozen=True, slots=True, kw_only=True)
class ScenarioPackage:
    """A package of scenarios."""

    package: str
    """One of :data:`verification.faults.scenario_catalogue.PACKAGES`."""
    report: str
    """The name of the package's report. A long run adds ``-long`` to it."""
    title: str
    description: str
    about: str
    """What the report says about the run."""
    jobs: int
    """How many scenarios run at once."""
    check: Callable[[Iterable[Line]], Verdict] | None = None
    """Checks a recorded history; ``None`` if the command has no option for that."""

    def main(self, arguments: Sequence[str] | None = None) -> int:
        """Run the scenarios, or check a history.

        :returns: the exit code: 1 if a promise was broken or a scenario failed, 2 if a scenario is unknown, else 0.
        """
        args = self._parser().parse_args(arguments)
        if self.check is None or args.check is None:
            return self._run(args)
        verdict = self.check(read(args.check))
        print(verdict.text(limit=100))
        return 0 if verdict.ok else 1

    def _parser(self) -> argparse.ArgumentParser:
        about = "\n".join(f"  {name:20} {entry.about}" for name, entry in self._scenarios().items())
        top = argparse.ArgumentParser(
            prog=f"python -m {self.package}",
            description=f"{self.description}\n\n{about}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        top.add_argument("names", nargs="*", metavar="NAME", help="run only these and save nothing")
        top.add_argument("--long", action="store_true", help="use larger counts (takes an hour)")
        top.add_argument(
            "--seed", type=int, default=1, help="seed of the faults and of the clients' calls (default 1)"
        )
        top.add_argument(
            "--jobs", type=int, default=self.jobs, help=f"scenarios that run at once (default {self.jobs})"
        )
        top.add_argument("--flavour", choices=server.FLAVOURS, default="valkey", help="which server to start")
        if self.check is not None:
            top.add_argument("--check", type=Path, metavar="HISTORY", help="check a recorded history again")
        return top

    def _run(self, args: argparse.Namespace) -> int:
        logging.getLogger("daybreak").addHandler(logging.NullHandler())
        known = self._scenarios()
        names = args.names or list(known)
        if unknown := [name for name in names if name not in known]:
            print(f"unknown scenario: {', '.join(unknown)}. Choose from: {', '.join(known)}", file=sys.stderr)
            return 2
        context = ScenarioContext(
            options=ClusterOptions(flavour=args.flavour), seed=args.seed, long=args.long, log=_print
        )
        started, rows, failed = time.monotonic(), list[Row](), list[str]()
        with ThreadPoolExecutor(args.jobs) as pool:
            for name, rows_or_none, messages in pool.map(
                lambda name: _run_quietly(known[name], context), names
            ):
                context.log("\n".join(messages))
                rows += rows_or_none or []
                failed += [name] if rows_or_none is None else []
        missed = [row.what for row in rows if row.held is False]
        if not args.names and not failed:
            context.log(f"saved {self._report(context, args.flavour, rows).save()}")
        context.log(
            f"{len(names)} scenarios in {time.monotonic() - started:.0f} s: {len(failed)} failed, "
            f"{len(missed)} missed"
        )
        for what in (*failed, *missed):
            context.log(f"  {what}")
        return 1 if failed or any(row.broken for row in rows) else 0

    def _scenarios(self) -> dict[str, Scenario]:
        return {
            name: entry
            for name, entry in scenario_catalogue.scenarios().items()
            if entry.package == self.package
        }

    def _report(self, context: ScenarioContext, flavour: str, rows: list[Row]) -> Report:
        options = ClusterOptions(flavour=flavour, pools=(PoolOptions(groups=0),), gateways=0)
        with FaultCluster(options) as cluster:
            version = server.version(cluster.port)
        return Report(
            f"{self.report}-long" if context.long else self.report,
            title=self.title + (", the promised counts" if context.long else ""),
            about=self.about,
            seed=context.seed,
            extra={"server": version},
            rows=rows,
        )


def _run_quietly(scenario: Scenario, context: ScenarioContext) -> tuple[str, list[Row] | None, list[str]]:
    """Run a scenario beside others. :returns: its name, its rows (``None`` if it failed) and its log."""
    messages: list[str] = []
    try:
        return (
            scenario.name,
            scenario_catalogue.run(scenario, replace(context, log=messages.append)),
            messages,
        )
    except Exception as exc:  # the other scenarios still run
        messages.append(f"   FAILED: {type(exc).__name__}: {exc}")
        return scenario.name, None, messages


def _print(text: str) -> None:
    print(text, flush=True)
