"""When each alert fires and when it is quiet, for series in the format of ``promtool test rules``.

``0+1x9`` is 0, 1, … 9, one value per minute; ``_x9`` is nine missing values. All series have the label
``namespace="n"``. For each alert of this module, :data:`CASES` has a fault that makes it fire. :data:`MORE_CASES`
has situations in which an alert could wrongly fire or stay quiet, for example while gateways are replaced.

The cases of the alerts about serving pools, batches, models and sessions are in modules of their own, such as
``serving_rule_cases``.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Case:
    """Series, and minutes at which the alert must fire or must be quiet."""

    series: dict[str, str]
    fires: int | None
    """``None``: the alert never fires."""
    quiet: tuple[int, ...]


def histogram(
    name: str, *, fast: tuple[str, ...], slow: tuple[str, ...], short: str, long: str
) -> dict[str, str]:
    """The buckets of a histogram.

    :param name: The name of its buckets with their labels, up to the bound: ``…_bucket{pool="p", le=``.
    :param fast: The bounds of the buckets whose values are ``short``.
    :param slow: The bounds of the buckets whose values are ``long``. These buckets count all samples.
    """
    return {f'{name}"{bound}"}}': short for bound in fast} | {f'{name}"{bound}"}}': long for bound in slow}


_POOL = 'pool="video"'
_REQUESTS = 'daybreak_http_requests_total{route="/v1/tasks"'
_TO_GROUPS = 'daybreak_http_requests_total{route="/v1/pools/{name}/serve/{path:path}"'
_GOOD = f'{_REQUESTS}, status="200", code="none"}}'
_UNAVAILABLE = f'{_REQUESTS}, status="503", code="store_unavailable"}}'
CASES: dict[str, Case] = {
    "DaybreakGatewayAbsent": Case(
        series={"daybreak_redis_up{}": "1x5 _x15 1x20"}, fires=20, quiet=(4, 13, 30)
    ),
    "DaybreakTargetDown": Case(
        series={
            'up{job="daybreak", instance="a:8000"}': "1x5 0x15 1x20",
            'up{job="daybreak/another", instance="b:8000"}': "0x40",
        },
        fires=18,
        quiet=(5, 12, 25),
    ),
    "DaybreakRanksAbsent": Case(
        series={
            f"daybreak_groups_ready{{{_POOL}}}": "1x40",
            f'daybreak_rank_heartbeat_age_seconds{{{_POOL}, rank="0"}}': "0x5 _x20 0x20",
        },
        fires=24,
        quiet=(5, 12, 30),
    ),
    "DaybreakQueueStuck": Case(
        series={
            f'daybreak_pool_tasks{{{_POOL}, state="queued"}}': "3x60",
            f'daybreak_pool_tasks{{{_POOL}, state="running"}}': "1x5 0x35 1x60",
            f'daybreak_task_claims_total{{{_POOL}, met="backlog"}}': "0+1x5 5x60",
            f"daybreak_wake_elapsed_seconds{{{_POOL}}}": "0x60",
        },
        fires=17,
        quiet=(5, 13, 45),
    ),
    "DaybreakTasksWait": Case(
        series={f'daybreak_queue_oldest_wait_seconds{{{_POOL}, priority="normal"}}': "0x5 1000x10 0x9"},
        fires=12,
        quiet=(8, 18),
    ),
    "DaybreakWakeSlow": Case(
        series={f"daybreak_wake_elapsed_seconds{{{_POOL}}}": "0+60x20 0x9"}, fires=18, quiet=(14, 22)
    ),
    "DaybreakGroupsRestart": Case(
        series={f"daybreak_groups_lost_total{{{_POOL}}}": "0x5 1x5 4x60"}, fires=15, quiet=(8, 60)
    ),
    "DaybreakLeasesLost": Case(
        series={f"daybreak_leases_lost_total{{{_POOL}}}": "0x5 1x60"}, fires=10, quiet=(5, 50)
    ),
    "DaybreakDeadLetters": Case(
        series={f'daybreak_tasks_ended_total{{{_POOL}, state="failed"}}': "0x5 1x60"}, fires=10, quiet=(5, 40)
    ),
    "DaybreakGpuWaste": Case(
        series={
            f'daybreak_gpu_wasted_seconds_total{{{_POOL}, cause="retry"}}': "0x10 0+60x30 1800x600",
            f"daybreak_gpu_used_seconds_total{{{_POOL}}}": "0+1x40 40+30x600",
        },
        fires=45,
        quiet=(10, 20, 150),
    ),
    "DaybreakStreamResets": Case(
        series={"daybreak_stream_resets_total{}": "0x5 0+20x20 400x30"}, fires=20, quiet=(5, 45)
    ),
    "DaybreakTicksLate": Case(
        series={
            f'daybreak_ticks_total{{{_POOL}, outcome="done", instance="a"}}': "0+60x5 300x40",
            f'daybreak_ticks_total{{{_POOL}, outcome="done", instance="b"}}': "0+60x9 540x10 600+60x20",
            f'daybreak_ticks_total{{{_POOL}, outcome="failed", instance="b"}}': "0x9 0+12x10 120x20",
        },
        fires=15,
        quiet=(8, 25),
    ),
    "DaybreakRedisDown": Case(series={"daybreak_redis_up{}": "1x5 0x5 1x9"}, fires=9, quiet=(5, 14)),
    "DaybreakRedisMemory": Case(
        series={
            "daybreak_redis_memory_bytes{}": "10x5 90x10 10x9",
            "daybreak_redis_memory_limit_bytes{}": "100x30",
        },
        fires=14,
        quiet=(5, 9, 20),
    ),
    "DaybreakRedisAof": Case(
        series={"daybreak_redis_aof_healthy{}": "1x5 0x5 1x9", "daybreak_redis_aof_enabled{}": "1x30"},
        fires=10,
        quiet=(5, 14),
    ),
    "DaybreakApiErrorBudgetFast": Case(
        series={
            _GOOD: "0+100x200",
            _UNAVAILABLE: "0x60 0+10x30 300x100",
        },
        fires=85,
        quiet=(60, 130),
    ),
    "DaybreakApiErrorBudgetSlow": Case(
        series={
            _GOOD: "0+1000x1600",
            _UNAVAILABLE: "0x60 0+4x600 2400x900",
        },
        fires=600,
        quiet=(60, 1500),
    ),
    "DaybreakOperatorAbsent": Case(
        series={f"daybreak_operator_last_plan_timestamp_seconds{{{_POOL}}}": "0+60x5 _x15 0+60x9"},
        fires=19,
        quiet=(5, 24),
    ),
    "DaybreakOperatorStuck": Case(
        series={f"daybreak_operator_last_plan_timestamp_seconds{{{_POOL}}}": "0+60x5 300x20 1560+60x9"},
        fires=25,
        quiet=(10, 30),
    ),
    "DaybreakOperatorBehind": Case(
        series={
            f'daybreak_operator_reconcile_delay_seconds_bucket{{{_POOL}, le="30.0"}}': "0x60",
            f'daybreak_operator_reconcile_delay_seconds_bucket{{{_POOL}, le="60.0"}}': "0x5 0+1x20 20x40",
            f'daybreak_operator_reconcile_delay_seconds_bucket{{{_POOL}, le="+Inf"}}': "0x5 0+1x20 20x40",
            "daybreak_operator_queue_pools{}": "0x60",
        },
        fires=24,
        quiet=(5, 50),
    ),
    "DaybreakOperatorFails": Case(
        series={f'daybreak_operator_failures_total{{{_POOL}, error="ApiError"}}': "0x5 0+2x20 40x30"},
        fires=20,
        quiet=(5, 45),
    ),
    "DaybreakPoolUnhealthy": Case(
        series={f"daybreak_operator_pool_healthy{{{_POOL}}}": "1x5 0x20 1x9"}, fires=24, quiet=(8, 18, 32)
    ),
    "DaybreakGroupsMissing": Case(
        series={
            f"daybreak_operator_groups_wanted{{{_POOL}}}": "0x5 2x60",
            f"daybreak_operator_groups_ready{{{_POOL}}}": "0x5 1x25 2x60",
        },
        fires=28,
        quiet=(5, 15, 40),
    ),
    "DaybreakNotScaling": Case(
        series={
            f"daybreak_pool_live_tasks{{{_POOL}}}": "0x5 3x60",
            f"daybreak_operator_groups_wanted{{{_POOL}}}": "0x15 1x60",
        },
        fires=14,
        quiet=(5, 8, 20),
    ),
    "DaybreakKedaErrors": Case(
        series={'keda_scaled_object_errors_total{scaledObject="video"}': "0x5 0+1x10 10x40"},
        fires=13,
        quiet=(5, 40),
    ),
}

_A, _B = 'pod="a"', 'pod="b"'
MORE_CASES: list[tuple[str, str, Case]] = [
    (
        "DaybreakNotScaling",
        "requests need groups, and KEDA does not see them",
        Case(
            series={
                f"daybreak_pool_live_tasks{{{_POOL}}}": "0x65",
                f"daybreak_groups_needed{{{_POOL}}}": "0x5 2x60",
                f"daybreak_operator_groups_wanted{{{_POOL}}}": "0x15 1x60",
            },
            fires=14,
            quiet=(5, 8, 20),
        ),
    ),
    (
        "DaybreakApiErrorBudgetFast",
        "many requests get 500 from a workload or find all groups full, and few other requests arrive",
        Case(
            series={
                _GOOD: "0+1x200",
                f'{_TO_GROUPS}, status="500", code="none"}}': "0x60 0+50x100",
                f'{_TO_GROUPS}, status="503", code="not_ready"}}': "0x60 0+50x100",
            },
            fires=None,
            quiet=(60, 66, 75, 120),
        ),
    ),
    (
        "DaybreakGroupsRestart",
        "two groups are lost, one before a rollout of the gateways and one after it",
        Case(
            series={
                f"daybreak_groups_lost_total{{{_POOL}, {_A}}}": "5x5 6x5 _x60",
                f"daybreak_groups_lost_total{{{_POOL}, {_B}}}": "_x11 6x5 7x60",
            },
            fires=20,
            quiet=(5, 14, 55),
        ),
    ),
    (
        "DaybreakLeasesLost",
        "the gateway that saw the loss is replaced",
        Case(
            series={
                f"daybreak_leases_lost_total{{{_POOL}, {_A}}}": "5x5 _x60",
                f"daybreak_leases_lost_total{{{_POOL}, {_B}}}": "_x6 6x60",
            },
            fires=10,
            quiet=(5, 50),
        ),
    ),
    (
        "DaybreakLeasesLost",
        "gateways are replaced, and nothing is lost",
        Case(
            series={
                f"daybreak_leases_lost_total{{{_POOL}, {_A}}}": "5x20 _x60",
                f"daybreak_leases_lost_total{{{_POOL}, {_B}}}": "_x18 5x60",
            },
            fires=None,
            quiet=(10, 20, 30, 60),
        ),
    ),
    (
        "DaybreakQueueStuck",
        "a model takes 14 minutes to wake",
        Case(
            series={
                f'daybreak_pool_tasks{{{_POOL}, state="queued"}}': "0x5 3x60",
                f'daybreak_pool_tasks{{{_POOL}, state="running"}}': "0x19 1x60",
                f'daybreak_task_claims_total{{{_POOL}, met="backlog"}}': "1x19 2x60",
                f"daybreak_wake_elapsed_seconds{{{_POOL}}}": "0x5 0+60x13 0x60",
            },
            fires=None,
            quiet=(5, 10, 15, 18, 25),
        ),
    ),
    (
        "DaybreakQueueStuck",
        "a wake never ends",
        Case(
            series={
                f'daybreak_pool_tasks{{{_POOL}, state="queued"}}': "0x5 3x90",
                f'daybreak_pool_tasks{{{_POOL}, state="running"}}': "0x95",
                f"daybreak_wake_elapsed_seconds{{{_POOL}}}": "0x5 0+60x90",
            },
            fires=50,
            quiet=(10, 25, 36),
        ),
    ),
    (
        "DaybreakGroupsMissing",
        "a wake lasts 20 minutes, which DaybreakWakeSlow reports",
        Case(
            series={
                f"daybreak_operator_groups_wanted{{{_POOL}}}": "0x5 1x60",
                f"daybreak_operator_groups_ready{{{_POOL}}}": "0x25 1x60",
                f"daybreak_wake_elapsed_seconds{{{_POOL}}}": "0x5 60+60x19 0x60",
            },
            fires=None,
            quiet=(10, 22, 25, 40),
        ),
    ),
    (
        "DaybreakGpuWaste",
        "one task is cancelled in an idle hour",
        Case(
            series={
                f'daybreak_gpu_wasted_seconds_total{{{_POOL}, cause="cancel"}}': "0x10 500x90",
                f"daybreak_gpu_used_seconds_total{{{_POOL}}}": "100x100",
            },
            fires=None,
            quiet=(10, 30, 60, 90),
        ),
    ),
    (
        "DaybreakApiErrorBudgetFast",
        "few requests arrive, and some of them fail",
        Case(
            series={
                _GOOD: "0+1x200",
                'daybreak_http_requests_total{route="/v1/tasks", status="500", code="internal"}': "0x60 0+1x8 8x100",
            },
            fires=None,
            quiet=(60, 64, 68, 75, 120),
        ),
    ),
    (
        "DaybreakApiErrorBudgetFast",
        "the queue is full, and a gateway that shuts down fails its probes",
        Case(
            series={
                'daybreak_http_requests_total{route="/v1/tasks", status="202", code="none"}': "0+100x200",
                'daybreak_http_requests_total{route="/v1/tasks", status="503", code="queue_full"}': "0x60 0+100x100",
                'daybreak_http_requests_total{route="/readyz", status="503", code="none"}': "0x60 0+100x100",
            },
            fires=None,
            quiet=(60, 70, 100, 150),
        ),
    ),
    (
        "DaybreakApiErrorBudgetFast",
        "all requests of clients fail, and many more probes succeed",
        Case(
            series={
                'daybreak_http_requests_total{route="/healthz", status="200", code="none"}': "0+40x200",
                _GOOD: "0+4x60 240x100",
                _UNAVAILABLE: "0x60 0+4x100",
            },
            fires=66,
            quiet=(60,),
        ),
    ),
    (
        "DaybreakTicksLate",
        "the metrics of a dead APIEntrypoint are still exported, and another one has just started",
        Case(
            series={
                f'daybreak_ticks_total{{{_POOL}, outcome="done", instance="dead"}}': "50x40",
                f'daybreak_ticks_total{{{_POOL}, outcome="done", instance="new"}}': "_x5 0+60x35",
            },
            fires=None,
            quiet=(10, 20, 30),
        ),
    ),
    (
        "DaybreakKedaErrors",
        "a single error, when Redis restarted",
        Case(
            series={'keda_scaled_object_errors_total{scaledObject="video"}': "0x5 1x40"},
            fires=None,
            quiet=(6, 8, 11, 20),
        ),
    ),
    (
        "DaybreakOperatorFails",
        "six failures at once",
        Case(
            series={f'daybreak_operator_failures_total{{{_POOL}, error="ApiError"}}': "0x5 6x40"},
            fires=None,
            quiet=(6, 10, 16, 25),
        ),
    ),
    (
        "DaybreakPoolUnhealthy",
        "a node takes ten minutes to come",
        Case(
            series={f"daybreak_operator_pool_healthy{{{_POOL}}}": "1x5 0x10 1x20"},
            fires=None,
            quiet=(6, 12, 16, 25),
        ),
    ),
]
