"""When each alert fires: series as ``promtool test rules`` reads them, and minutes at which it fires or does not.

``0+1x9`` is 0, 1, … 9, a value each minute; ``_x9`` are missing values. All series have the label ``namespace="n"``.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Case:
    """Series, and the minutes at which the alert is known to fire and not to fire."""

    series: dict[str, str]
    fires: int
    quiet: tuple[int, ...]


_POOL = 'pool="video"'
CASES: dict[str, Case] = {
    "DaybreakGatewayAbsent": Case(
        series={"daybreak_redis_up{}": "1x5 _x15 1x20"}, fires=20, quiet=(4, 13, 30)
    ),
    "DaybreakTargetDown": Case(
        series={'up{job="daybreak", instance="a:8000"}': "1x5 0x15 1x20"}, fires=18, quiet=(5, 12, 25)
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
            f'daybreak_pool_tasks{{{_POOL}, state="queued"}}': "0x5 3x60",
            f'daybreak_pool_tasks{{{_POOL}, state="running"}}': "0x40 1x60",
            f'daybreak_task_claims_total{{{_POOL}, met="backlog"}}': "1x60",
        },
        fires=30,
        quiet=(5, 14, 45),
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
            f'daybreak_gpu_wasted_seconds_total{{{_POOL}, cause="retry"}}': "0x10 0+60x30 1800x90",
            f"daybreak_gpu_used_seconds_total{{{_POOL}}}": "0+1x40 40+30x90",
        },
        fires=35,
        quiet=(10, 120),
    ),
    "DaybreakStreamResets": Case(
        series={"daybreak_stream_resets_total{}": "0x5 0+20x20 400x30"}, fires=20, quiet=(5, 45)
    ),
    "DaybreakTicksLate": Case(
        series={
            f'daybreak_tick_lag_seconds{{{_POOL}, instance="a"}}': "1x5 100x10 1x10",
            f'daybreak_tick_lag_seconds{{{_POOL}, instance="b"}}': "1x9 100x10 1x10",
        },
        fires=14,
        quiet=(8, 20),
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
            'daybreak_http_requests_total{status="200"}': "0+100x200",
            'daybreak_http_requests_total{status="503"}': "0x60 0+10x30 300x100",
        },
        fires=85,
        quiet=(60, 130),
    ),
    "DaybreakApiErrorBudgetSlow": Case(
        series={
            'daybreak_http_requests_total{status="200"}': "0+1000x1600",
            'daybreak_http_requests_total{status="503"}': "0x60 0+4x600 2400x900",
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
        series={f"daybreak_operator_pool_healthy{{{_POOL}}}": "1x5 0x10 1x9"}, fires=14, quiet=(8, 20)
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
        fires=14,
        quiet=(5, 40),
    ),
}
