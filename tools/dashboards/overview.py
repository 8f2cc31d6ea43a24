"""The first dashboard: is it healthy, what waits, and what does it cost now?"""

from __future__ import annotations

from dashboards.model import KUBERNETES, Dashboard, Kind, Panel, Row, Unit, query

_REQUESTS = "daybreak_http_requests_total{HERE}[$__rate_interval]"

OVERVIEW = Dashboard(
    uid="daybreak-overview",
    title="Daybreak / Overview",
    description="Is it healthy, what waits, and what does it cost now? Start here.",
    deeper=("daybreak-pool", "daybreak-wake", "daybreak-api", "daybreak-cost", "daybreak-ray"),
    rows=(
        Row(
            title="Is it healthy?",
            panels=(
                Panel(
                    title="Alerts",
                    shows="Alerts of Daybreak that fire now.",
                    bad="Any number above 0. The red marks on the graphs show when each alert began; its annotation "
                    "links to its runbook.",
                    unit=Unit.COUNT,
                    kind=Kind.NUMBER,
                    runbook="alerts",
                    warn=1,
                    alarm=3,
                    width=4,
                    height=5,
                    queries=(
                        query(
                            'count(ALERTS{HERE,alertname=~"Daybreak.+",alertstate="firing"}) or vector(0)',
                            "firing",
                        ),
                    ),
                ),
                Panel(
                    title="API availability",
                    shows="Share of requests that did not fail with a 5xx status, over the last hour.",
                    bad="Below 99.9 %, the objective that the error budget is made of.",
                    deeper="daybreak-api",
                    unit=Unit.RATIO,
                    kind=Kind.NUMBER,
                    runbook="daybreakapierrorbudgetfast",
                    warn=0.999,
                    alarm=0.99,
                    width=4,
                    height=5,
                    queries=(
                        query(
                            '1 - (sum(rate(daybreak_http_requests_total{HERE,status=~"5.."}[1h])) or vector(0)) / '
                            "sum(rate(daybreak_http_requests_total{HERE}[1h]))",
                            "available",
                        ),
                    ),
                ),
                Panel(
                    title="Gateways",
                    shows="Gateways that Prometheus scrapes.",
                    bad="0: nobody can submit. Fewer than the deployment's replicas: some do not run.",
                    deeper="daybreak-api",
                    unit=Unit.COUNT,
                    kind=Kind.NUMBER,
                    runbook="daybreakgatewayabsent",
                    warn=1,
                    alarm=0.5,
                    width=4,
                    height=5,
                    queries=(query("count(daybreak_redis_up{HERE})", "gateways"),),
                ),
                Panel(
                    title="Redis",
                    shows="1 if every gateway reaches Redis.",
                    bad="0: new tasks are answered with 503 until Redis is back. Accepted tasks are safe.",
                    deeper="daybreak-api",
                    unit=Unit.YES_NO,
                    kind=Kind.NUMBER,
                    runbook="daybreakredisdown",
                    warn=1,
                    alarm=0.5,
                    width=4,
                    height=5,
                    queries=(query("min(daybreak_redis_up{HERE})", "reachable"),),
                ),
                Panel(
                    title="Operator",
                    shows="Time since the operator last planned the pool that it planned least recently.",
                    bad="More than 15 min: it does not scale this pool.",
                    deeper="daybreak-wake",
                    unit=Unit.SECONDS,
                    kind=Kind.NUMBER,
                    runbook="daybreakoperatorstuck",
                    warn=600,
                    alarm=900,
                    width=4,
                    height=5,
                    queries=(
                        query(
                            "time() - min(daybreak_operator_last_plan_timestamp_seconds{HERE})",
                            "since the last plan",
                            no_data=KUBERNETES,
                        ),
                    ),
                ),
                Panel(
                    title="Failed tasks",
                    shows="Failed tasks that are still stored and could be replayed.",
                    bad="A number that grows: look for one cause of many failures.",
                    unit=Unit.COUNT,
                    kind=Kind.NUMBER,
                    runbook="daybreakdeadletters",
                    warn=1,
                    alarm=100,
                    width=4,
                    height=5,
                    queries=(
                        query(
                            "sum(max by (namespace, pool) (daybreak_pool_dead_letters{POOL}))",
                            "failed",
                        ),
                    ),
                ),
            ),
        ),
        Row(
            title="What waits, what runs?",
            panels=(
                Panel(
                    title="Tasks by state",
                    shows="Tasks that have not ended: due and waiting, delayed, and running.",
                    bad="`queued` that grows while `running` does not: see the pool's dashboard.",
                    unit=Unit.COUNT,
                    kind=Kind.AREAS,
                    runbook="daybreakqueuestuck",
                    pictured=True,
                    queries=(
                        query(
                            "sum by (state) (max by (namespace, pool, state) (daybreak_pool_tasks{POOL}))",
                            "{{state}}",
                        ),
                    ),
                ),
                Panel(
                    title="Oldest wait by pool",
                    shows="How long the oldest due task of each pool has waited.",
                    bad="A line that rises steadily: no task is claimed. Above 15 min an alert fires.",
                    unit=Unit.SECONDS,
                    runbook="daybreaktaskswait",
                    alarm=900,
                    pictured=True,
                    queries=(
                        query(
                            "max by (namespace, pool) (daybreak_queue_oldest_wait_seconds{POOL})",
                            "{{pool}}",
                        ),
                    ),
                ),
                Panel(
                    title="Groups by state",
                    shows="Groups of all pools by state: starting, loading, idle, busy, draining, lost.",
                    bad="`lost` above 0, or `starting` and `loading` for longer than a wake takes.",
                    unit=Unit.COUNT,
                    kind=Kind.AREAS,
                    runbook="daybreakgroupsrestart",
                    pictured=True,
                    queries=(
                        query(
                            "sum by (state) (max by (namespace, pool, state) (daybreak_groups{POOL}))",
                            "{{state}}",
                        ),
                    ),
                ),
                Panel(
                    title="Accepted and ended",
                    shows="Tasks accepted, and tasks that ended, per second, by final state.",
                    bad="`failed` above 0, or `accepted` above the sum of the others for long: the queue grows.",
                    unit=Unit.PER_SECOND,
                    runbook="daybreakdeadletters",
                    queries=(
                        query(
                            "sum(max by (namespace, pool) "
                            "(rate(daybreak_tasks_submitted_total{POOL}[$__rate_interval])))",
                            "accepted",
                        ),
                        query(
                            "sum by (state) (max by (namespace, pool, state) "
                            "(rate(daybreak_tasks_ended_total{POOL}[$__rate_interval])))",
                            "{{state}}",
                        ),
                    ),
                ),
                Panel(
                    title="Wakes in progress",
                    shows="How long the current wake of each pool has lasted; 0 means that there is none.",
                    bad="Longer than the model usually takes: see *Wake and scale* for the phase.",
                    deeper="daybreak-wake",
                    unit=Unit.SECONDS,
                    runbook="daybreakwakeslow",
                    alarm=900,
                    queries=(
                        query("max by (namespace, pool) (daybreak_wake_elapsed_seconds{POOL})", "{{pool}}"),
                    ),
                ),
                Panel(
                    title="Requests by status",
                    shows="HTTP requests per second by status.",
                    bad="5xx, or many 429: clients are refused.",
                    deeper="daybreak-api",
                    unit=Unit.PER_SECOND,
                    runbook="daybreakapierrorbudgetfast",
                    queries=(query(f"sum by (status) (rate({_REQUESTS}))", "{{status}}"),),
                ),
            ),
        ),
        Row(
            title="What does it cost now?",
            panels=(
                Panel(
                    title="GPUs held",
                    shows="GPUs that groups hold, by what they do: used for a result, wasted, or idle. The time of an "
                    "attempt is added when it ends, so long tasks show as steps.",
                    bad="`idle` or `wasted` near the height of the sum.",
                    deeper="daybreak-cost",
                    unit=Unit.GPUS,
                    kind=Kind.AREAS,
                    runbook="daybreakgpuwaste",
                    pictured=True,
                    width=12,
                    queries=(
                        query(
                            "sum(max by (namespace, pool) "
                            "(rate(daybreak_gpu_used_seconds_total{POOL}[$__rate_interval])))",
                            "used",
                        ),
                        query(
                            "sum by (cause) (max by (namespace, pool, cause) "
                            "(rate(daybreak_gpu_wasted_seconds_total{POOL}[$__rate_interval])))",
                            "wasted: {{cause}}",
                        ),
                        query(
                            "sum(max by (namespace, pool) "
                            "(rate(daybreak_gpu_idle_seconds_total{POOL}[$__rate_interval])))",
                            "idle",
                        ),
                    ),
                ),
                Panel(
                    title="Waste by pool",
                    shows="Share of the GPU time of attempts that led to no result, over the last hour. Starts of "
                    "groups are left out.",
                    bad="Above 50 %: tasks are retried, cancelled or fail after much work.",
                    deeper="daybreak-cost",
                    unit=Unit.RATIO,
                    runbook="daybreakgpuwaste",
                    alarm=0.5,
                    width=12,
                    queries=(
                        query(
                            "sum by (namespace, pool) (max by (namespace, pool, cause) "
                            '(increase(daybreak_gpu_wasted_seconds_total{POOL,cause!="cold_start"}[1h]))) / '
                            "(sum by (namespace, pool) (max by (namespace, pool, cause) "
                            '(increase(daybreak_gpu_wasted_seconds_total{POOL,cause!="cold_start"}[1h]))) + '
                            "max by (namespace, pool) (increase(daybreak_gpu_used_seconds_total{POOL}[1h])))",
                            "{{pool}}",
                        ),
                    ),
                ),
            ),
        ),
    ),
)
