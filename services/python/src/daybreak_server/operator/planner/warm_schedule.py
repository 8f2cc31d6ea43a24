"""The warm schedule: how many groups stay warm now, and when this number changes next."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, time, timedelta

from daybreak_server.operator.crd.resource import WEEKDAYS, PoolSpec, WarmWindow


def floor(spec: PoolSpec, now: float) -> int:
    """The number of groups that stay warm at ``now`` (seconds since 1970), whatever KEDA wants."""
    open_now = [
        window.groups
        for window in spec.warm_schedule
        if any(begin <= now < end for begin, end in _openings(window, now))
    ]
    return max([spec.min_warm, *open_now])


def next_change_s(spec: PoolSpec, now: float) -> float | None:
    """Seconds until a window opens or closes; ``None`` without windows."""
    moments = [
        moment
        for window in spec.warm_schedule
        for opening in _openings(window, now)
        for moment in opening
        if moment > now
    ]
    return min(moments) - now if moments else None


def _openings(window: WarmWindow, now: float) -> Iterator[tuple[float, float]]:
    """The times at which the window opens and closes, from yesterday to a week ahead, as Unix timestamps."""
    zone = window.zone
    today = datetime.fromtimestamp(now, zone).date()
    begin, end = _time(window.from_), _time(window.to)
    for days in range(-1, 8):
        day = today + timedelta(days=days)
        if WEEKDAYS[day.weekday()] in window.days:
            last = day if end > begin else day + timedelta(days=1)
            yield (
                datetime.combine(day, begin, zone).timestamp(),
                datetime.combine(last, end, zone).timestamp(),
            )


def _time(clock: str) -> time:
    hours, minutes = clock.split(":")
    return time(int(hours), int(minutes))
