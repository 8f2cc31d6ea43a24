"""When each alert about streaming sessions fires, and what must not set it off. See ``rule_cases``."""

from __future__ import annotations

from rule_cases import Case, histogram

_POOL, _A, _B = 'pool="speech"', 'pod="a"', 'pod="b"'
_READY = f"daybreak_groups_ready{{{_POOL}}}"
_LONGER = f"daybreak_rank_latency_multiplier_ratio{{{_POOL}}}"


def _refused(reason: str) -> str:
    return f'daybreak_sessions_refused_total{{{_POOL}, reason="{reason}"}}'


def _ended(reason: str, pod: str = _A) -> str:
    return f'daybreak_sessions_ended_total{{{_POOL}, {pod}, reason="{reason}"}}'


def _waiting(pod: str = _A) -> str:
    return f'daybreak_sessions{{{_POOL}, {pod}, state="waiting"}}'


def _lags(*, short: str, long: str) -> dict[str, str]:
    """``short`` counts the lags below 0.5 s. ``long`` also counts the lags between 5 and 10 s. No other lags occur."""
    name = f"daybreak_rank_session_lag_seconds_bucket{{{_POOL}, le="
    return histogram(name, fast=("0.5", "5.0"), slow=("10.0", "+Inf"), short=short, long=long)


CASES: dict[str, Case] = {
    "DaybreakSessionsRefused": Case(
        series={_refused("limit"): "0x5 0+2x15 30x60", _refused("lag"): "0x5 0+4x15 60x60"},
        fires=15,
        quiet=(5, 8, 35),
    ),
    "DaybreakSessionsWait": Case(
        series={_waiting(): "0x5 3x15 0x20", _READY: "2x40"}, fires=15, quiet=(5, 8, 25)
    ),
    "DaybreakSessionsLag": Case(
        series=_lags(short="0+600x5 3000x20 3000+600x40", long="0+600x70"), fires=18, quiet=(5, 9, 50)
    ),
    "DaybreakSessionsDegraded": Case(series={_LONGER: "1x5 2x25 1x20"}, fires=25, quiet=(5, 19, 35)),
    "DaybreakSessionsFail": Case(
        series={_ended("finished"): "0+60x80", _ended("failed"): "0x5 0+6x30 180x60"},
        fires=20,
        quiet=(5, 9, 60),
    ),
}

MORE_CASES: list[tuple[str, str, Case]] = [
    (
        "DaybreakSessionsRefused",
        "one program opens too many sessions at once, and then waits as long as the refusal says",
        Case(series={_refused("limit"): "0x9 8x60"}, fires=None, quiet=(9, 10, 12, 14, 20)),
    ),
    (
        "DaybreakSessionsWait",
        "sessions keep coming, and groups soon take them",
        Case(
            series={_waiting(): "0 1 0 2 0 0 1 0 3 0 1 0 0 2 0", _READY: "2x15"},
            fires=None,
            quiet=(3, 6, 9, 12),
        ),
    ),
    (
        "DaybreakSessionsWait",
        "sessions wait for a wake, which has an alert of its own",
        Case(series={_waiting(): "0x2 3x20 0x10", _READY: "0x22 1x10"}, fires=None, quiet=(5, 10, 20, 25)),
    ),
    (
        "DaybreakSessionsWait",
        "a gateway that lost Redis shows old numbers for a minute",
        Case(
            series={_waiting(): "1x4 _x20", _waiting(_B): "0x25", _READY: "1x25"},
            fires=None,
            quiet=(2, 3, 5, 9),
        ),
    ),
    (
        "DaybreakSessionsLag",
        "a group dies, and its sessions are behind for a minute",
        Case(
            series=_lags(short="0+600x9 5400 5400+600x50", long="0+600x60"),
            fires=None,
            quiet=(9, 10, 11, 13, 20),
        ),
    ),
    (
        "DaybreakSessionsDegraded",
        "a burst makes turns longer for ten minutes",
        Case(series={_LONGER: "1x5 2x10 1x20"}, fires=None, quiet=(6, 10, 15, 20)),
    ),
    (
        "DaybreakSessionsFail",
        "a few of many sessions have audio that the model cannot process",
        Case(
            series={_ended("finished"): "0+600x60", _ended("failed"): "0+3x60"},
            fires=None,
            quiet=(10, 20, 30, 50),
        ),
    ),
    (
        "DaybreakSessionsFail",
        "the only session in an hour fails",
        Case(
            series={_ended("finished"): "0x60", _ended("failed"): "0x9 1x60"},
            fires=None,
            quiet=(10, 15, 25, 50),
        ),
    ),
]
