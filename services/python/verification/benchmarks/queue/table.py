"""The rows of the queue benchmark, with their baselines and targets."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence

from verification.benchmarks.queue.handoff import HandOff, quantile, tenths_range
from verification.benchmarks.queue.rate import BATCH, LEADERS, WIDTH, Rate
from verification.results import Report, Row

ABOUT = (
    "The benchmark calls the classes that production uses (`RedisStore`, `RedisQueue`). The server has a core to "
    f"itself; one producer process and {LEADERS} leader processes run on the other cores. The producer submits tasks "
    f"in batches of {BATCH}. Each leader process stands for {WIDTH} groups: one call settles their tasks and claims "
    "the next. As in production, each task has a record, events and a lease, and is charged to its tenant in the "
    "ledger. Queued tasks have a prompt of 200 characters, metadata and an idempotency key."
)
TASKS_S, BYTES, OVER_MS, P99_MS, FLAT = 10_000, 1536, 2.0, 10.0, 0.10
FLATNESS, TASKS = "Change with depth", "No-op tasks, "
CPU_SUBMIT, CPU_SETTLE = "Server CPU of a submit in a batch", "Server CPU of a settle that claims the next"
RAW = "the same clients and payloads through a plain list: RPUSH in the same batches, LPOP one by one"


def report(*, server: str) -> Report:
    """A report without rows."""
    return Report(
        "queue",
        title="The queue alone",
        about=ABOUT,
        extra={"server": server, "fsync": "everysec except where a row says `always`"},
    )


def merged(earlier: Sequence[Row], rows: Sequence[Row]) -> list[Row]:
    """Replace the rows that were measured again, add the other new rows, and recompute the change with depth."""
    new = {row.what: row for row in rows}
    combined = [new.pop(row.what, row) for row in earlier if not row.what.startswith(FLATNESS)]
    combined += new.values()
    at = [number for number, row in enumerate(combined) if row.what.startswith(TASKS)]
    if len(at) > 1:
        combined[at[-1] + 1 : at[-1] + 1] = [
            _flatness([combined[number] for number in at]),
            *_flatness_of_cpu(combined),
        ]
    return combined


def _flatness(rows: Sequence[Row]) -> Row:
    """How far the rate at any depth differs from the rate at the first depth."""
    first, last = (row.what.removeprefix(TASKS).removesuffix(" queued") for row in (rows[0], rows[-1]))
    apart = max(abs(row.value / rows[0].value - 1) for row in rows)
    return Row(
        f"{FLATNESS}: rate, {first} to {last} queued", 100 * apart, "%", target="± 10 %", held=apart <= FLAT,
        note="largest difference from the rate at the smallest depth",
    )  # fmt: skip


def _flatness_of_cpu(rows: Sequence[Row]) -> list[Row]:
    """How far a task's CPU time on the server differs between the smallest and the largest depth.

    Other load on the machine changes this CPU time less than it changes the task rate.
    """
    parts = [[row for row in rows if row.what.startswith(part)] for part in (CPU_SUBMIT, CPU_SETTLE)]
    if any(len(part) < 2 for part in parts):
        return []
    first, last = (sum(part[at].value for part in parts) for at in (0, -1))
    return [
        Row(
            f"{FLATNESS}: server CPU of a task", 100 * abs(last / first - 1), "%", target="± 10 %",
            held=abs(last / first - 1) <= FLAT,
            note=f"submit, settle and claim: {first:.0f} µs at the smallest depth, {last:.0f} µs at the largest",
        )
    ]  # fmt: skip


def short(number: int) -> str:
    """The number in the form 1 k, 100 k or 1 M, if it is round."""
    for size, name in ((10**6, "M"), (10**3, "k")):
        if number >= size and number % size == 0:
            return f"{number // size} {name}"
    return f"{number:,}"


def handoff_rows(times: HandOff, *, prefix: str = "") -> list[Row]:
    """The median and the p99 of the time from enqueue to claim, with the raw hand-off as the baseline."""
    raw, ours = statistics.median(times.raw_ms), statistics.median(times.queue_ms)
    raw99, ours99 = quantile(times.raw_ms, 0.99), quantile(times.queue_ms, 0.99)
    baseline = "RPUSH → BLPOP, alternated in the same run"
    return [
        Row(
            f"{prefix}Enqueue → claim by an idle group, median", ours, "ms", raw, baseline, target="≤ baseline + 2 ms",
            held=ours - raw <= OVER_MS, spread=tenths_range(times.queue_ms, 0.5),
            note=f"{len(times.queue_ms):,} samples",
        ),
        Row(
            f"{prefix}Enqueue → claim by an idle group, p99", ours99, "ms", raw99, baseline, target="≤ 10 ms",
            held=ours99 <= P99_MS, spread=tenths_range(times.queue_ms, 0.99),
        ),
    ]  # fmt: skip


def rate_rows(rates: Sequence[Rate]) -> list[Row]:
    """Rows for the tasks per second at each depth, for memory, and (as details) for the parts of a task's time."""
    middles = [statistics.median(rate.tasks_s) for rate in rates]
    rows = [
        Row(
            f"{TASKS}{short(rate.depth)} queued", middle, "tasks/s", rate.raw_s, RAW,
            target=f"≥ {TASKS_S:,}", held=middle >= TASKS_S, spread=(min(rate.tasks_s), max(rate.tasks_s)),
        )
        for rate, middle in zip(rates, middles, strict=True)
    ]  # fmt: skip
    rows.append(
        Row(
            f"Memory of a queued task, {short(rates[-1].depth)} queued", rates[-1].bytes_a_task, "bytes",
            target="≤ 1,536", held=rates[-1].bytes_a_task <= BYTES,
            note="growth of `used_memory`: record, input, index entries, idempotency key and `queued` event",
        )
    )  # fmt: skip
    rows.append(
        Row(
            "Memory of an ended task", rates[0].ended_bytes, "bytes",
            note="until its retention ends: record, input, index entries, and three events in the pool's stream",
        )
    )  # fmt: skip
    for rate in (rates[0], rates[-1]) if len(rates) > 1 else rates:
        rows += _parts(rate)
    return rows


def _parts(rate: Rate) -> list[Row]:
    at = f"{short(rate.depth)} queued"
    return [
        Row(f"One group in each process, so one task a call, {at}", rate.single_s, "tasks/s", detail=True),
        Row(f"Submit alone, {at}", rate.submits_s, "tasks/s", detail=True),
        Row(f"{CPU_SUBMIT}, {at}", rate.submit_us, "µs", detail=True),
        Row(f"Settle and claim the next alone, {at}", rate.settles_s, "tasks/s", detail=True),
        Row(f"{CPU_SETTLE}, {at}", rate.settle_us, "µs", detail=True),
    ]


def cost_rows(costs: Mapping[str, float]) -> list[Row]:
    """The server's CPU time for single calls."""
    return [
        Row(f"Server CPU of {what}", value, "µs", note="one call at a time", detail=True)
        for what, value in costs.items()
    ]


def always_rows(rate: Rate, hands: HandOff) -> list[Row]:
    """The rate and the hand-off with an fsync before each answer."""
    middle = statistics.median(rate.tasks_s)
    return [
        Row(
            f"With `always`: no-op tasks, {short(rate.depth)} queued", middle, "tasks/s", rate.raw_s, RAW,
            spread=(min(rate.tasks_s), max(rate.tasks_s)),
        ),
        *(
            Row(row.what, row.value, row.unit, row.baseline, row.baseline_what, spread=row.spread, note=row.note)
            for row in handoff_rows(hands, prefix="With `always`: ")
        ),
    ]  # fmt: skip
