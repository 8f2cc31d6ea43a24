"""The first dashboard: is it healthy, what waits, and what does it cost now?"""

from __future__ import annotations

from dashboards.model import (
    ENDS,
    GROUP_STATES,
    KUBERNETES,
    TASK_STATES,
    Dashboard,
    Kind,
    Panel,
    Row,
    Unit,
    query,
)
from daybreak_server.observability.alerts import API_REQUESTS, FAILED_REQUESTS, REQUESTS
from daybreak_server.observability.promql import grown

_WASTED = "sum by (namespace, pool) ({})".format(
    grown("daybreak_gpu_wasted_seconds_total", "6h", "cause", matchers='POOL,cause!="cold_start"')
)
_USED = grown("daybreak_gpu_used_seconds_total", "6h", matchers="POOL")

OVERVIEW = Dashboard(
    uid="daybreak-overview",
    title="Daybreak / Overview",
    description="Is it healthy, what waits, and what does it cost now? Start here.",
    deeper=(
        "daybreak-pool",
        "daybreak-serving",
        "daybreak-sessions",
        "daybreak-wake",
        "daybreak-api",
        "daybreak-cost",
        "daybreak-ray",
    ),
    rows=(
        Row(
            title="Is it healthy?",
            panels=(
                Panel(
                    title="Alerts",
                    pictured=True,
                    shows="Alerts of Daybreak that fire now, without those of severity `info`.",
                    bad="Any number above 0. The table below names them. The red marks on the graphs show when each of "
                    "them began.",
                    unit=Unit.COUNT,
                    kind=Kind.NUMBER,
                    runbook="alerts",
                    warn=1,
                    alarm=3,
                    width=4,
                    height=5,
                    queries=(
                        query(
                            'count(ALERTS{HERE,alertname=~"Daybreak.+",alertstate="firing",severity!="info"}) '
                            "or vector(0)",
                            "firing",
                        ),
                    ),
                ),
                Panel(
                    title="API availability",
                    pictured=True,
                    shows="Share of the clients' requests that did not fail with a 5xx status, over the last hour. "
                    "`queue_full` is no failure, and requests under `/v1/pools/<pool>/serve` do not count. Without "
                    "requests it is 100 %.",
                    bad="Below 99.9 %, the default objective, from which the error budget is computed.",
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
                            f"(1 - (sum(rate({FAILED_REQUESTS}[1h])) or vector(0)) / "
                            f"(sum(rate({API_REQUESTS}[1h])) > 0)) or vector(1)",
                            "available",
                        ),
                    ),
                ),
                Panel(
                    title="Gateways",
                    pictured=True,
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
                    queries=(query("count(daybreak_redis_up{HERE}) or vector(0)", "gateways"),),
                ),
                Panel(
                    title="Redis",
                    pictured=True,
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
                    queries=(query("min(daybreak_redis_up{HERE}) or vector(0)", "reachable"),),
                ),
                Panel(
                    title="Operator",
                    shows="Time since the operator last planned a pool; of several pools, the longest time.",
                    bad="More than 15 min: the operator does not scale at least one pool. `not scraped`: no operator "
                    "runs, or Prometheus does not reach it.",
                    no_value="not scraped",
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
                    pictured=True,
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
                            "sum(max by (namespace, pool) (daybreak_pool_dead_letters{POOL})) or vector(0)",
                            "failed",
                        ),
                    ),
                ),
                Panel(
                    title="Alerts that fire",
                    shows="Each alert of Daybreak that fires now. Its name links to its runbook.",
                    bad="Any row with the severity `critical` or `warning`.",
                    unit=Unit.COUNT,
                    kind=Kind.TABLE,
                    runbook="alerts",
                    runbook_of_row=True,
                    width=24,
                    height=5,
                    pictured=True,
                    queries=(
                        query(
                            "max by (alertname, severity, pool, runbook) "
                            '(ALERTS{HERE,alertname=~"Daybreak.+",alertstate="firing"})',
                            "firing",
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
                    colors=TASK_STATES,
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
                    bad="A curve that rises steadily: no task is claimed. Above 15 min an alert fires.",
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
                    colors=GROUP_STATES,
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
                    shows="Tasks accepted per second, and tasks ended per second, by final state.",
                    bad="`failed` above 0. `accepted` above the sum of the others for long: the queue grows.",
                    unit=Unit.PER_SECOND,
                    colors=ENDS,
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
                    shows="HTTP requests of clients per second by status.",
                    bad="5xx, or many 429: clients are refused.",
                    deeper="daybreak-api",
                    unit=Unit.PER_SECOND,
                    runbook="daybreakapierrorbudgetfast",
                    queries=(query(f"sum by (status) (rate({REQUESTS}[$__rate_interval]))", "{{status}}"),),
                ),
            ),
        ),
        Row(
            title="What does it cost now?",
            panels=(
                Panel(
                    title="GPUs held",
                    shows="GPUs (ranks) of the groups that exist now, by the state of their group.",
                    bad="`idle` for long: shorten `scaling.cooldownPeriod`, or `scaling.behavior.scaleDown` if some "
                    "groups of the pool are busy. `starting` or `loading` for longer than a wake takes.",
                    deeper="daybreak-cost",
                    unit=Unit.GPUS,
                    kind=Kind.AREAS,
                    colors=GROUP_STATES,
                    runbook="daybreakgpuwaste",
                    pictured=True,
                    width=12,
                    queries=(
                        query(
                            "sum by (state) (max by (namespace, pool, state) (daybreak_gpus_held{POOL}))",
                            "{{state}}",
                        ),
                    ),
                ),
                Panel(
                    title="Waste by pool",
                    shows="Share of the attempts' GPU time that was wasted because it led to no result, over the last "
                    "six hours. Starts of groups are left out.",
                    bad="Above 50 %: tasks are retried, cancelled or fail after much work.",
                    deeper="daybreak-cost",
                    unit=Unit.RATIO,
                    runbook="daybreakgpuwaste",
                    alarm=0.5,
                    width=12,
                    pictured=True,
                    queries=(
                        query(
                            f"{_WASTED} / ({_WASTED} + {_USED} > 0)",
                            "{{pool}}",
                        ),
                    ),
                ),
            ),
        ),
    ),
)
