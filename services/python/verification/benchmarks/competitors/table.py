"""Makes the rows of the race's table: the best variants of each queue, and the other variants as details. Daybreak's
rows say whether Daybreak is ahead of all other queues."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence

from verification.benchmarks.competitors.contenders import Contender
from verification.benchmarks.competitors.environments import versions
from verification.benchmarks.competitors.race import Result
from verification.benchmarks.queue.handoff import quantile
from verification.results import Report, Row

ABOUT = (
    "Every queue runs end to end on the same server and the same cores; no process is pinned to a core. *Rate*: one "
    "producer process submits no-op tasks as fast as its library can (in batches if the library has them), and real "
    "worker processes run them; the clock stops when the last task has run. *Delay*: one producer submits 100 tasks a "
    "second, one by one; the delay is the time from the call to the start of the task. Each queue ran with several "
    "settings; the table shows the setting with the highest rate and the setting with the shortest delay. Daybreak "
    "runs its whole leader loop and keeps every record; the other queues delete a task when it ends."
)
US = "Daybreak"


def report(
    results: Mapping[str, Sequence[Result]], contenders: Sequence[Contender], *, server: str
) -> Report:
    """The report of the race, with the versions of all packages."""
    packages = {
        name: version
        for contender in contenders
        for name, version in versions(contender).items()
        if name != "redis"
    }
    extra = {"server": server, "fsync": "everysec", **packages}
    new_report = Report("competitors", title="Beside other Python queues", about=ABOUT, extra=extra)
    best_of = {contender.name: _best(results.get(contender.name, ())) for contender in contenders}
    others = [best for name, best in best_of.items() if name != US and best]
    for contender in contenders:
        best = best_of[contender.name]
        if best is None:
            why = next(
                (result.error for result in results.get(contender.name, ()) if result.error), "not run"
            )
            new_report.add(Row(f"{contender.name}: rate", 0, "tasks/s", note=f"failed: {why}"))
            continue
        fastest, quickest = best
        ours = contender.name == US and others
        is_first = ours and middle(fastest) > max(middle(rival) for rival, _ in others)
        note = f"{fastest.variant}; submits {fastest.submitted_s:,.0f}/s; {contender.keeps}"
        spread = (min(fastest.tasks_s), max(fastest.tasks_s))
        new_report.add(
            Row(
                f"{contender.name}: rate", middle(fastest), "tasks/s", spread=spread,
                target="ahead of all" if ours else "", held=bool(is_first) if ours else None,
                note=note,
            )
        )  # fmt: skip
        for result in results[contender.name]:
            if result is not fastest:
                new_report.add(
                    Row(f"{contender.name}, {result.variant}: rate", middle(result), "tasks/s", detail=True)
                )
        for what, share in (("median", 0.5), ("p99", 0.99)):
            value = quantile(quickest.delays_ms, share)
            least = min((quantile(rival.delays_ms, share) for _, rival in others), default=0.0)
            new_report.add(
                Row(
                    f"{contender.name}: delay, {what}", value, "ms",
                    target="ahead of all" if ours else "", held=value < least if ours else None,
                    note=quickest.variant if share == 0.5 else "",
                )
            )  # fmt: skip
    return new_report


def middle(result: Result) -> float:
    """The rate of a variant in tasks per second: the median of its repeats."""
    return statistics.median(result.tasks_s) if result.tasks_s else 0.0


def line(contender: Contender, result: Result) -> str:
    """One result for the terminal."""
    if result.error:
        return f"{contender.name} ({result.variant}): {result.error}"
    delays = result.delays_ms
    return (
        f"{contender.name} ({result.variant}): {middle(result):,.0f} tasks/s, "
        f"submitted at {result.submitted_s:,.0f}/s, "
        f"delay {quantile(delays, 0.5):.2f} ms, p99 {quantile(delays, 0.99):.2f} ms"
    )


def _best(results: Sequence[Result]) -> tuple[Result, Result] | None:
    """The result with the highest rate, and the result with the shortest median delay."""
    valid = [result for result in results if not result.error]
    if not valid:
        return None
    return max(valid, key=middle), min(valid, key=lambda result: quantile(result.delays_ms, 0.5))
