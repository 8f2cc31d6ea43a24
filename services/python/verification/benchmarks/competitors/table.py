"""The race as rows: the best variant of each, Daybreak's place among them, and the variants that were slower."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence

from verification.benchmarks.competitors.contenders import Contender
from verification.benchmarks.competitors.environments import versions
from verification.benchmarks.competitors.race import Result
from verification.benchmarks.queue.handoff import quantile
from verification.results import Report, Row

ABOUT = (
    "End to end on one server and the same cores, nothing pinned: one producer process hands in no-op tasks as fast as "
    "its library can (in batches where it has them), real worker processes run them, and the clock stops when the last "
    "one has run. Then single tasks at 100/s: from the call to the start of the task. Of several settings of each "
    "queue the fastest counts for tasks/s, the quickest for the delay. Daybreak runs its whole leader loop and keeps "
    "all its records; the others keep nothing of a task that has ended."
)
US = "Daybreak"


def report(
    results: Mapping[str, Sequence[Result]], contenders: Sequence[Contender], *, server: str
) -> Report:
    """All rows, with versions."""
    told = {name: version for one in contenders for name, version in versions(one).items() if name != "redis"}
    extra = {"server": server, "fsync": "everysec", **told}
    made = Report("rivals", title="Beside other Python queues", about=ABOUT, extra=extra)
    ran = {one.name: _best(results.get(one.name, ())) for one in contenders}
    others = [best for name, best in ran.items() if name != US and best]
    for one in contenders:
        best = ran[one.name]
        if best is None:
            why = next((result.error for result in results.get(one.name, ()) if result.error), "not run")
            made.add(Row(f"{one.name}: tasks/s", 0, "tasks/s", note=f"failed: {why}"))
            continue
        fastest, quickest = best
        ours = one.name == US and others
        first = ours and middle(fastest) > max(middle(other) for other, _ in others)
        note = f"{fastest.variant}; handed in at {fastest.handed_in_s:,.0f}/s; keeps {one.keeps}"
        slower = [
            f"{result.variant} {middle(result):,.0f}" for result in results[one.name] if result is not fastest
        ]
        spread = (min(fastest.tasks_s), max(fastest.tasks_s))
        made.add(
            Row(
                f"{one.name}: tasks/s", middle(fastest), "tasks/s", spread=spread,
                target="ahead of all" if ours else "", held=bool(first) if ours else None,
                note=note + (f"; also tried: {', '.join(slower)}" if slower else ""),
            )
        )  # fmt: skip
        for what, share in (("median", 0.5), ("p99", 0.99)):
            value = quantile(quickest.delays_ms, share)
            least = min((quantile(other.delays_ms, share) for _, other in others), default=0.0)
            made.add(
                Row(
                    f"{one.name}: enqueue → started at 100/s, {what}", value, "ms",
                    target="ahead of all" if ours else "", held=value < least if ours else None,
                    note=quickest.variant if share == 0.5 else "",
                )
            )  # fmt: skip
    return made


def middle(result: Result) -> float:
    """Tasks per second, the median of the repeats."""
    return statistics.median(result.tasks_s) if result.tasks_s else 0.0


def line(contender: Contender, result: Result) -> str:
    """One result for the terminal."""
    if result.error:
        return f"{contender.name} ({result.variant}): {result.error}"
    delays = result.delays_ms
    return (
        f"{contender.name} ({result.variant}): {middle(result):,.0f} tasks/s, "
        f"handed in at {result.handed_in_s:,.0f}/s, "
        f"delay {quantile(delays, 0.5):.2f} ms, p99 {quantile(delays, 0.99):.2f} ms"
    )


def _best(results: Sequence[Result]) -> tuple[Result, Result] | None:
    """The fastest and the quickest."""
    good = [result for result in results if not result.error]
    if not good:
        return None
    return max(good, key=middle), min(good, key=lambda result: quantile(result.delays_ms, 0.5))
