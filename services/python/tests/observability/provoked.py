"""Provokes the faults and remembers which alerts fired."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from faults import Fault

from testkit.observed import ObservedRun
from testkit.waiting import wait_until

TIMEOUT_S = 480.0
"""How long a test waits until an alert fires or resolves."""


@dataclass(frozen=True)
class Fired:
    """What a fault set off."""

    before: int
    """How many notifications had arrived before the fault."""
    notifications: dict[str, dict[str, Any]]
    """Each alert of the fault → the notification which says that this alert fires."""


def provoke_all(run: ObservedRun, faults: Sequence[Fault]) -> dict[str, Future[Fired]]:
    """Provoke the faults of one part of the system one after the other, and those of different parts at the same time.
    A fault of the whole system happens alone.

    :returns: name of a fault → what the fault set off, or the exception that :func:`_provoked` raised.
    """
    results: dict[str, Future[Fired]] = {}
    for alone, stage in groupby(faults, key=lambda fault: fault.part is None):
        parts: dict[str | None, list[Fault]] = {}
        for fault in stage:
            parts.setdefault(fault.part, []).append(fault)
            results[fault.name] = Future()
        with ThreadPoolExecutor(1 if alone else len(parts)) as threads:
            list(threads.map(lambda part: _provoke(run, part, results), parts.values()))
    return results


def _provoke(run: ObservedRun, faults: Sequence[Fault], results: dict[str, Future[Fired]]) -> None:
    for fault in faults:
        try:
            results[fault.name].set_result(_provoked(run, fault))
        except Exception as exc:
            results[fault.name].set_exception(exc)


def _provoked(run: ObservedRun, fault: Fault) -> Fired:
    """Wait until the fault's alerts are quiet, provoke the fault, and wait until all of these alerts have fired."""
    watch = run.watch
    pool = "" if fault.pool is None else f',pool=~"|{fault.pool}"'
    active = f'ALERTS{{alertname=~"{"|".join(fault.alerts)}"{pool}}}'
    wait_until(lambda: not watch.now(active), TIMEOUT_S, f"{fault.alerts} to be quiet")
    before = len(watch.notifications.received)
    fired: dict[str, dict[str, Any]] = {}
    with fault.context(run) as during:

        def all_fire() -> bool:
            during()
            for name in fault.alerts:
                notification = watch.notifications.since(before, name, "firing", pool=fault.pool)
                if notification is not None:
                    fired[name] = notification
            return len(fired) == len(fault.alerts)

        wait_until(all_fire, TIMEOUT_S, f"{fault.alerts} to fire", pause_s=0.5)
    return Fired(before, fired)
