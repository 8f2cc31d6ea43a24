"""The dashboard of a pool: its queue, its work and its groups."""

from __future__ import annotations

from dashboards.model import (
    GROUP_STATES,
    KUBERNETES,
    PRIORITIES,
    WAITS,
    Dashboard,
    Kind,
    Panel,
    Row,
    Unit,
    quantiles,
    query,
)
from daybreak_server.observability.promql import grown

_QUEUE = Row(
    title="Queue",
    panels=(
        Panel(
            title="Waiting by priority",
            shows="Due tasks that wait for a group, by priority.",
            bad="A sum that grows for hours: `maxGroups` is too low, or no group starts.",
            unit=Unit.COUNT,
            kind=Kind.AREAS,
            colors=PRIORITIES,
            runbook="daybreaktaskswait",
            pictured=True,
            queries=(
                query(
                    "sum by (priority) (max by (namespace, pool, priority) (daybreak_queue_tasks{POOL}))",
                    "{{priority}}",
                ),
            ),
        ),
        Panel(
            title="Oldest wait by priority",
            shows="How long the oldest due task has waited, by priority; 0 means that none waits.",
            bad="`high` above the wait that you promise. All priorities rising together: no task is claimed.",
            unit=Unit.SECONDS,
            runbook="daybreaktaskswait",
            alarm=900,
            queries=(
                query(
                    "max by (namespace, pool, priority) (daybreak_queue_oldest_wait_seconds{POOL})",
                    "{{pool}} {{priority}}",
                ),
            ),
        ),
        Panel(
            title="Time from queue to claim",
            shows="Median and 95th percentile of the time that claimed tasks had waited, by priority.",
            bad="A p95 far above the p50: some tasks wait for a wake or until it is their tenant's turn.",
            unit=Unit.SECONDS,
            colors=WAITS,
            runbook="daybreaktaskswait",
            pictured=True,
            queries=quantiles("daybreak_queue_wait_seconds{POOL}", "priority", stored=True),
        ),
        Panel(
            title="Claims",
            shows="Claims per second. `waiting_group`: the task found an idle group. `backlog`: the task waited.",
            bad="No claims while tasks wait.",
            unit=Unit.PER_SECOND,
            runbook="daybreakqueuestuck",
            queries=(
                query(
                    "sum by (met) (max by (namespace, pool, met) "
                    "(rate(daybreak_task_claims_total{POOL}[$__rate_interval])))",
                    "{{met}}",
                ),
            ),
        ),
        Panel(
            title="Changes of state",
            shows="Changes of tasks' states per second.",
            bad="`running → queued` or `running → delayed`: attempts end without a result.",
            unit=Unit.PER_SECOND,
            runbook="daybreakleaseslost",
            queries=(
                query(
                    "sum by (from, to) (max by (namespace, pool, from, to) "
                    "(rate(daybreak_task_transitions_total{POOL}[$__rate_interval])))",
                    "{{from}} → {{to}}",
                ),
            ),
        ),
        Panel(
            title="Live tasks",
            shows="Tasks that hold a group, wait for one, or will be due soon. KEDA scales by this number.",
            bad="Above 0 while no group is wanted: KEDA does not scale.",
            unit=Unit.COUNT,
            runbook="daybreaknotscaling",
            queries=(query("max by (namespace, pool) (daybreak_pool_live_tasks{POOL})", "{{pool}}"),),
        ),
        Panel(
            title="Waiting by tenant",
            shows="Due tasks that wait, by tenant. Tenants beyond `metrics.tenants_max` are in `other`.",
            bad="One tenant with most of the tasks, while the oldest wait rises: this tenant submits more than its "
            "share. Only the tasks of this tenant should wait longer.",
            unit=Unit.COUNT,
            kind=Kind.AREAS,
            width=12,
            queries=(
                query(
                    "sum by (tenant) (max by (namespace, pool, tenant) "
                    '(daybreak_tenant_queued_tasks{POOL,tenant=~"$tenant"}))',
                    "{{tenant}}",
                ),
            ),
        ),
        Panel(
            title="Fairness error",
            shows="How far apart the virtual times of waiting tenants are, in GPU-seconds ÷ weight.",
            bad="Above the cost of one task for long: a tenant gets less than its share.",
            unit=Unit.SECONDS,
            width=12,
            queries=(query("max by (namespace, pool) (daybreak_fairness_error_seconds{POOL})", "{{pool}}"),),
        ),
    ),
)

_REQUESTS = Row(
    title="Requests",
    panels=(
        Panel(
            title="Requests",
            shows="The demand of a pool: requests that wait in a gateway or that a group answers (kind `online`), or "
            "open sessions (kind `sessions`).",
            bad="More than `maxGroups` × `targetLoad` for long: further requests or sessions wait.",
            unit=Unit.COUNT,
            runbook="daybreaknotscaling",
            deeper="daybreak-serving",
            width=12,
            queries=(query("max by (namespace, pool) (daybreak_pool_requests{POOL})", "{{pool}}"),),
        ),
        Panel(
            title="Groups that requests need",
            shows="`needed`: the demand divided by the pool's target load, rounded up. KEDA scales by this number. "
            "`ready`: the groups that are ready.",
            bad="`needed` above 0 while no group is ready or wanted: KEDA does not scale.",
            unit=Unit.COUNT,
            runbook="daybreaknotscaling",
            deeper="daybreak-serving",
            width=12,
            queries=(
                query("max by (namespace, pool) (daybreak_groups_needed{POOL})", "{{pool}} needed"),
                query("max by (namespace, pool) (daybreak_groups_ready{POOL})", "{{pool}} ready"),
            ),
        ),
    ),
)

_WORK = Row(
    title="Work",
    panels=(
        Panel(
            title="Run time",
            shows="Median and 95th percentile of the run time of attempts that succeeded.",
            bad="A sudden rise: larger inputs, a slower model, or hosts that share a GPU.",
            unit=Unit.SECONDS,
            pictured=True,
            queries=quantiles("daybreak_task_run_seconds{POOL}", "pool", stored=True),
        ),
        Panel(
            title="Time per step",
            shows="Median and 95th percentile of the duration of a step, by phase.",
            bad="A sudden rise without a change of model: a slow host, or ranks that wait for each other.",
            unit=Unit.SECONDS,
            queries=quantiles("daybreak_rank_step_seconds{POOL}", "phase"),
        ),
        Panel(
            title="Time per phase",
            shows="Median and 95th percentile of the duration of a phase of an attempt, by phase.",
            bad="`encode` or `upload` near the duration of the work itself: look at CPUs and at S3.",
            unit=Unit.SECONDS,
            queries=quantiles("daybreak_rank_phase_seconds{POOL}", "phase"),
        ),
        Panel(
            title="Attempts by outcome",
            shows="Attempts that ended, per second, by outcome.",
            bad="`failed` or `broken`: see the strikes, and the log of the task.",
            unit=Unit.PER_SECOND,
            runbook="daybreakdeadletters",
            queries=(
                query(
                    "sum by (outcome) (rate(daybreak_rank_attempts_total{POOL}[$__rate_interval]))",
                    "{{outcome}}",
                ),
            ),
        ),
        Panel(
            title="Strikes and retries",
            shows="Strikes (attempts that count against a task) and retries in the last hour, by reason.",
            bad="Strikes or retries of one reason that continue. `lease_lost`: hosts die. `stalled`: work hangs. "
            "`error`: the workload fails.",
            unit=Unit.COUNT,
            runbook="daybreakleaseslost",
            pictured=True,
            queries=(
                query(
                    f"sum by (reason) ({grown('daybreak_task_strikes_total', '1h', 'reason', matchers='POOL')})",
                    "strike: {{reason}}",
                ),
                query(
                    f"sum by (reason) ({grown('daybreak_task_retries_total', '1h', 'reason', matchers='POOL')})",
                    "retry: {{reason}}",
                ),
            ),
        ),
        Panel(
            title="Releases",
            shows="Tasks that returned to the queue without a strike in the last hour, by reason.",
            bad="Many without a deployment or a scale-down: groups restart. `claim_lost`: Redis's answers get lost.",
            unit=Unit.COUNT,
            runbook="daybreakgroupsrestart",
            queries=(
                query(
                    f"sum by (reason) ({grown('daybreak_task_releases_total', '1h', 'reason', matchers='POOL')})",
                    "{{reason}}",
                ),
            ),
        ),
        Panel(
            title="Time to stop a cancelled task",
            shows="Median and 95th percentile of the time from the cancel of a running task until its group stopped.",
            bad="Longer than a few steps: the workload does not check for a cancel within a step.",
            unit=Unit.SECONDS,
            queries=quantiles("daybreak_task_cancel_seconds{POOL}", "pool", stored=True),
        ),
        Panel(
            title="Steps until a cancelled task stopped",
            shows="Median and 95th percentile of the steps that a running task still reported after its cancel.",
            bad="More than 1, unless steps are shorter than `progress_s` (0.25 s): the cancel reaches the ranks late.",
            unit=Unit.COUNT,
            queries=quantiles("daybreak_task_cancel_steps{POOL}", "pool", stored=True),
        ),
        Panel(
            title="Files deleted",
            shows="Files of ended tasks and lost attempts that gateways deleted, per second.",
            bad="0 for days while tasks end: storage grows. See the gateways' logs.",
            unit=Unit.PER_SECOND,
            queries=(
                query(
                    "sum by (pool) (rate(daybreak_files_deleted_total{POOL}[$__rate_interval]))",
                    "{{pool}}",
                ),
            ),
        ),
    ),
)

_GROUPS = Row(
    title="Groups and ranks",
    panels=(
        Panel(
            title="Groups by state",
            shows="Groups by state.",
            bad="`lost` above 0; `starting` or `loading` for longer than a wake takes; `idle` while tasks wait.",
            unit=Unit.COUNT,
            kind=Kind.AREAS,
            colors=GROUP_STATES,
            runbook="daybreakgroupsrestart",
            queries=(
                query(
                    "sum by (state) (max by (namespace, pool, state) (daybreak_groups{POOL}))",
                    "{{state}}",
                ),
            ),
        ),
        Panel(
            title="Wanted and ready",
            shows="Groups that the operator wants, and groups that are ready.",
            bad="`ready` below `wanted` for more than 15 min.",
            unit=Unit.COUNT,
            runbook="daybreakgroupsmissing",
            queries=(
                query(
                    "max by (namespace, pool) (daybreak_groups_wanted{POOL})",
                    "{{pool}} wanted",
                    no_data=KUBERNETES,
                ),
                query("max by (namespace, pool) (daybreak_groups_ready{POOL})", "{{pool}} ready"),
            ),
        ),
        Panel(
            title="Groups and leases lost",
            shows="Groups that died, hung or stopped refreshing their registration, and attempts whose lease ended "
            "without a renewal, in the last hour.",
            bad="Any number, unless a node has failed: ranks crash or hang.",
            unit=Unit.COUNT,
            runbook="daybreakleaseslost",
            warn=1,
            pictured=True,
            queries=(
                query(
                    grown("daybreak_groups_lost_total", "1h", matchers="POOL"),
                    "{{pool}} groups",
                ),
                query(
                    grown("daybreak_leases_lost_total", "1h", matchers="POOL"),
                    "{{pool}} leases",
                ),
            ),
        ),
        Panel(
            title="Heartbeat age by rank",
            shows="Time since the work of each rank last advanced, with the pod in which it runs.",
            bad="Near the pool's `stall_s` (120 s by default): the group is about to restart.",
            unit=Unit.SECONDS,
            runbook="daybreakgroupsrestart",
            warn=60,
            alarm=120,
            queries=(
                query(
                    "max by (namespace, pool, pod, rank) (daybreak_rank_heartbeat_age_seconds{POOL})",
                    "{{pool}} {{pod}} rank {{rank}}",
                ),
            ),
        ),
        Panel(
            title="Lease age",
            shows="Time since the lease of the running task was renewed; 0 means that none runs.",
            bad="Near `lease_s` (15 s by default): the group is about to lose the task.",
            unit=Unit.SECONDS,
            runbook="daybreakleaseslost",
            warn=8,
            alarm=15,
            queries=(query("max by (namespace, pool) (daybreak_rank_lease_age_seconds{POOL})", "{{pool}}"),),
        ),
        Panel(
            title="From wake-up to claim",
            shows="Median and 95th percentile of the time from the wake-up of a waiting group to its claim.",
            bad="Above 100 ms: Redis is slow, or the leader's host is overloaded.",
            unit=Unit.SECONDS,
            queries=quantiles("daybreak_rank_claim_seconds{POOL}", "pool"),
        ),
    ),
)

POOL = Dashboard(
    uid="daybreak-pool",
    title="Daybreak / A pool and its groups",
    description="What waits in a pool, what runs, how attempts end, and how its groups are.",
    deeper=("daybreak-wake", "daybreak-cost", "daybreak-ray"),
    by_tenant=True,
    rows=(_QUEUE, _REQUESTS, _WORK, _GROUPS),
)
