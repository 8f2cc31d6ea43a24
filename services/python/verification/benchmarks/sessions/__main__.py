"""Finds how many sessions each strategy sustains: ``python -m verification.benchmarks.sessions [PART …]``.

The parts are ``measured``, ``simulated`` and ``second``. If the command names no part, all three run.

``measured`` runs the engine with the tiny speech model and users who speak in real time, and writes `sessions.json`,
`sessions.svg` and `sessions-steps.json`. It takes some minutes, and needs a quiet machine. ``simulated`` runs the
scheduler in virtual time, and writes `sessions-simulated.json` and `sessions-simulated.svg`. ``second`` draws the
batches of one second, and writes `one-second-of-batches.svg`. With the same seed, these two parts write the same files
each time.

``--whisper-live PYTHON`` measures WhisperLive beside Daybreak, and writes `sessions-whisper-live.json`. ``PYTHON`` is
the interpreter of an environment with the packages in `requirements/`. With this option, a part runs only if the
command names it.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path

from daybreak_server.batching.iterations import IterationRules, Strategy
from verification.benchmarks.sessions import curves, second, table
from verification.benchmarks.sessions.costs import FLAT
from verification.benchmarks.sessions.outcome import Outcome
from verification.benchmarks.sessions.simulation import Load, Run, most_users
from verification.benchmarks.sessions.strategies import ALL, SCENES, Contender, Scene
from verification.results import FOLDER

LIMIT_S = 2.0
LONG_S, QUICK_S = 120.0, 24.0
"""The duration of a simulated run: usually, and with ``--quick``."""
PARTS = ("measured", "simulated", "second")
SHOWN = Load(users=12, for_s=6.0, turn_s=0.96, most_tokens=20)
"""The sessions that ``second`` draws."""
SHOWN_FROM_S = 3.84


def main(arguments: list[str] | None = None) -> int:
    """Run the named parts."""
    parser = argparse.ArgumentParser(prog="python -m verification.benchmarks.sessions", description=__doc__)
    parser.add_argument(
        "parts", nargs="*", help=f"some of: {', '.join(PARTS)}; all by default, or none with --whisper-live"
    )
    parser.add_argument("--quick", action="store_true", help="shorter runs, and fewer points on each curve")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, default=FOLDER, help="folder of the results")
    parser.add_argument(
        "--whisper-live", type=Path, metavar="PYTHON", help="measure WhisperLive beside Daybreak"
    )
    args = parser.parse_args(arguments)
    if unknown := set(args.parts) - set(PARTS):
        parser.error(f"no such part: {', '.join(sorted(unknown))}; the parts are: {', '.join(PARTS)}")
    args.out.mkdir(parents=True, exist_ok=True)
    parts = args.parts or (() if args.whisper_live else PARTS)
    if "measured" in parts:
        measured(args.out, quick=args.quick)
    if args.whisper_live:
        beside_whisper_live(args.whisper_live, args.out, quick=args.quick)
    if "simulated" in parts:
        simulated(args.out, seed=args.seed, quick=args.quick)
    if "second" in parts:
        one_second(args.out / "one-second-of-batches.svg", seed=args.seed)
    return 0


def measured(out: Path, *, quick: bool) -> None:
    """Find how many sessions each strategy sustains, and draw the lag over the throughput."""
    from verification.benchmarks.sessions.measured import measure  # imports torch
    from verification.benchmarks.sessions.measured import table as measured_table

    found = measure.measure(measure.QUICK if quick else measure.FULL, limit_s=LIMIT_S)
    title = "tiny speech model, one CPU core, measured"
    curves.draw([table.panel(found.results, title=title)], out / f"{measured_table.NAME}.svg")
    for report in (measured_table.report(found, limit_s=LIMIT_S), measured_table.steps_report(found)):
        report.save(out)
        print(report.table())


def beside_whisper_live(python: Path, out: Path, *, quick: bool) -> None:
    """Let clients speak to WhisperLive and to Daybreak."""
    from verification.benchmarks.sessions.whisper_live.measure import QUICK, Plan, measure

    report = measure(python, QUICK if quick else Plan())
    report.save(out)
    print(report.table())


def simulated(out: Path, *, seed: int, quick: bool) -> None:
    """Find how many sessions each strategy sustains in each scene, and draw the lag over the throughput."""
    results = {
        scene: {contender: found(scene, contender, seed=seed, quick=quick) for contender in ALL}
        for scene in SCENES
    }
    panels = [table.panel(by_contender, title=scene.name) for scene, by_contender in results.items()]
    curves.draw(panels, out / f"{table.NAME}.svg")
    report = table.report(results, seed=seed, limit_s=LIMIT_S)
    report.save(out)
    print(report.table())


def found(scene: Scene, contender: Contender, *, seed: int, quick: bool) -> table.Found:
    """The number of sessions that a strategy sustains with the best of its rules."""
    for_s = QUICK_S if quick else LONG_S

    def best_of(rules: IterationRules) -> tuple[int, Outcome | None]:
        return most_users(lambda users: scene.run(users, rules, for_s=for_s, seed=seed), limit_s=LIMIT_S)

    tried = [(best_of(rules), rules) for rules in contender.rules]
    (sessions, best), rules = max(tried, key=lambda entry: entry[0][0])
    users = scene.users[::4] if quick else scene.users
    curve = [(number, scene.run(number, rules, for_s=for_s, seed=seed)) for number in users]
    return table.Found(
        sessions=sessions,
        best=best,
        curve=[(number, run) for number, run in curve if not run.grows],
        rules="".join(f"; {name} {rules.settings()[name]:g}" for name in _varied(contender)),
    )


def _varied(contender: Contender) -> list[str]:
    """The names of the settings in which the rules of a strategy differ."""
    first, *others = (rules.settings() for rules in contender.rules)
    return [name for name, value in first.items() if any(other[name] != value for other in others)]


def one_second(path: Path, *, seed: int) -> Path:
    """Draw the same second of speech, batched by requests and by iterations."""
    ways = (
        (
            "request-level: a batch runs until its last turn ends",
            IterationRules(strategy=Strategy.REQUEST, batch_timeout_s=0),
        ),
        (
            "by iterations, strictly prefill first: new turns join between two steps",
            IterationRules(gather_size=1),
        ),
        (
            "by iterations, prefill gathers: up to 4 turns, at most 80 ms",
            IterationRules(gather_size=4, gather_wait_s=0.08),
        ),
    )
    panels = []
    for title, rules in ways:
        run = Run(replace(SHOWN, seed=seed), FLAT, rules, keep_records=True)
        outcome = run.run()
        ready = dict(enumerate(run.ready))
        panels.append(second.Panel(title=title, records=outcome.records, ready=ready, begins=SHOWN_FROM_S))
    return second.draw(panels, path)


if __name__ == "__main__":
    sys.exit(main())
