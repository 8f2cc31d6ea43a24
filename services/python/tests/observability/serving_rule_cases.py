"""When each alert about requests to serving pools fires, and what must not set it off. See ``rule_cases``."""

from __future__ import annotations

from rule_cases import Case

_POOL, _A, _B = 'pool="video"', 'pod="a"', 'pod="b"'
_ROUTER = 'daybreak_router_requests_total{pool="video"'
_ANSWERED = f'{_ROUTER}, outcome="answered"}}'
_RETRIES = 'daybreak_router_retries_total{pool="video"'


def _line(*, waiting: str, in_flight: str, groups: str, capacity: str, answers: str) -> dict[str, str]:
    """The series of a pool whose requests wait in line."""
    return {
        f"daybreak_router_waiting_requests{{{_POOL}}}": waiting,
        f"daybreak_router_in_flight_requests{{{_POOL}}}": in_flight,
        f"daybreak_router_ready_groups{{{_POOL}}}": groups,
        f"daybreak_pool_capacity_requests{{{_POOL}}}": capacity,
        f"daybreak_router_first_byte_seconds_count{{{_POOL}}}": answers,
    }


CASES: dict[str, Case] = {
    "DaybreakRequestsRefused": Case(
        series={_ANSWERED: "0+60x60", f'{_ROUTER}, outcome="queue_full"}}': "0x5 0+10x15 150x60"},
        fires=15,
        quiet=(5, 8, 35),
    ),
    "DaybreakRequestsLate": Case(
        series={
            _ANSWERED: "0+60x60",
            f'{_ROUTER}, outcome="not_ready"}}': "0x5 0+5x20 100x60",
            f'{_ROUTER}, outcome="deadline_passed"}}': "0x5 0+5x20 100x60",
        },
        fires=16,
        quiet=(5, 9, 45),
    ),
    "DaybreakLineStuck": Case(
        series=_line(
            waiting="0x5 8x15 0x20",
            in_flight="2x40",
            groups="1x40",
            capacity="4x40",
            answers="0+9x5 45x15 45+9x20",
        ),
        fires=14,
        quiet=(5, 9, 25),
    ),
    "DaybreakRequestsFail": Case(
        series={
            _ANSWERED: "0+60x80",
            f'{_ROUTER}, outcome="cut_off"}}': "0x5 0+2x30 60x60",
            f'{_RETRIES}, reason="no_answer"}}': "0x5 0+2x30 60x60",
        },
        fires=25,
        quiet=(5, 14, 60),
    ),
    "DaybreakRouterRetries": Case(
        series={
            _ANSWERED: "0+6x80",
            f'{_RETRIES}, reason="busy"}}': "0x5 0+30x30 900x60",
            f'{_RETRIES}, reason="unreachable"}}': "0x90",
            f'{_RETRIES}, reason="no_answer"}}': "0x90",
        },
        fires=25,
        quiet=(5, 14, 60),
    ),
}

MORE_CASES: list[tuple[str, str, Case]] = [
    (
        "DaybreakRequestsRefused",
        "a burst fills the line for a minute",
        Case(
            series={_ANSWERED: "0+60x60", f'{_ROUTER}, outcome="queue_full"}}': "0x9 8x60"},
            fires=None,
            quiet=(9, 10, 12, 14, 20),
        ),
    ),
    (
        "DaybreakRequestsRefused",
        "a gateway shuts down, and its clients go to another one",
        Case(
            series={_ANSWERED: "0+60x60", f'{_ROUTER}, outcome="shutting_down"}}': "0x5 0+50x20 1000x40"},
            fires=None,
            quiet=(5, 10, 15, 25, 40),
        ),
    ),
    (
        "DaybreakRequestsLate",
        "deadlines of requests pass during a wake of 4 minutes",
        Case(
            series={
                _ANSWERED: "0x10 0+60x60",
                f'{_ROUTER}, outcome="not_ready"}}': "0x5 0+20x4 80x60",
                f"daybreak_wake_elapsed_seconds{{{_POOL}}}": "0x5 0+60x4 0x60",
            },
            fires=None,
            quiet=(6, 9, 11, 14, 16, 20, 30),
        ),
    ),
    (
        "DaybreakRequestsLate",
        "deadlines of requests pass while a model starts on a worker",
        Case(
            series={
                _ANSWERED: "0x10 0+60x60",
                f'{_ROUTER}, outcome="not_ready"}}': "0x5 0+20x14 280x60",
                'daybreak_model_wake_elapsed_seconds{model="video"}': "0x5 0+60x14 0x60",
                'daybreak_model_wake_elapsed_seconds{model="another"}': "0x80",
            },
            fires=None,
            quiet=(6, 9, 11, 14, 16, 20, 30),
        ),
    ),
    (
        "DaybreakRequestsLate",
        "a few of many requests have deadlines that are too short",
        Case(
            series={
                _ANSWERED: "0+600x60",
                f'{_ROUTER}, outcome="deadline_passed"}}': "0+10x60",
            },
            fires=None,
            quiet=(10, 20, 30, 50),
        ),
    ),
    (
        "DaybreakLineStuck",
        "every group is full of long requests",
        Case(
            series=_line(waiting="8x40", in_flight="4x40", groups="1x40", capacity="4x40", answers="0x40"),
            fires=None,
            quiet=(5, 10, 20, 35),
        ),
    ),
    (
        "DaybreakLineStuck",
        "no gateway can connect to the groups",
        Case(
            series=_line(
                waiting="0x5 8x35", in_flight="0x40", groups="1x5 0x35", capacity="4x40", answers="0x40"
            ),
            fires=10,
            quiet=(5, 7),
        ),
    ),
    (
        "DaybreakLineStuck",
        "the pool wakes, so no group is ready",
        Case(
            series=_line(waiting="8x40", in_flight="0x40", groups="0x40", capacity="0x40", answers="0x40"),
            fires=None,
            quiet=(5, 10, 20, 35),
        ),
    ),
    (
        "DaybreakLineStuck",
        "the line is long and moves, on two gateways",
        Case(
            series={
                series.replace("}", f", {pod}}}"): values
                for pod in (_A, _B)
                for series, values in _line(
                    waiting="8x40", in_flight="1x40", groups="1x40", capacity="4x40", answers="0+2x40"
                ).items()
            },
            fires=None,
            quiet=(5, 10, 20, 35),
        ),
    ),
    (
        "DaybreakRequestsFail",
        "a host dies with 64 requests",
        Case(
            series={
                _ANSWERED: "0+60x60",
                f'{_ROUTER}, outcome="cut_off"}}': "0x9 32x60",
                f'{_RETRIES}, reason="no_answer"}}': "0x9 32x60",
            },
            fires=None,
            quiet=(10, 12, 14, 16, 20, 30),
        ),
    ),
    (
        "DaybreakRouterRetries",
        "groups are replaced one after the other, and refuse requests while they drain",
        Case(
            series={
                _ANSWERED: "0+60x60",
                f'{_RETRIES}, reason="busy"}}': "0+5x60",
                f'{_RETRIES}, reason="leaves"}}': "0+200x60",
                f'{_RETRIES}, reason="no_answer"}}': "0x60",
                f'{_RETRIES}, reason="unreachable"}}': "0x60",
            },
            fires=None,
            quiet=(10, 20, 30, 50),
        ),
    ),
]
