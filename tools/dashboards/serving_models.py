"""The row of the dashboard *Serving* about models on external workers."""

from __future__ import annotations

from dashboards.model import BAD, BUSY, FINE, GOOD, LATE, NONE, Kind, Panel, Row, Unit, query

_REPLICA_STATES = {"ready": GOOD, "starting": LATE, "failed": BAD, "draining": BUSY}
_MODEL_STATES = {"ready": GOOD, "starting": LATE, "placing": "#c2410c", "failed": BAD, "draining": BUSY}


def _of_model(metric: str) -> str:
    return f"max by (namespace, model) (daybreak_model_{metric}{{HERE}})"


MODELS = Row(
    title="Models on workers",
    panels=(
        Panel(
            title="Models by state",
            shows="Models that workers serve, by state. `registered`: no replica is wanted. `placing`: no worker has "
            "room. Requests for models are in the rows above, with the alias as the pool.",
            bad="`placing` or `failed` for longer than a few minutes.",
            unit=Unit.COUNT,
            kind=Kind.AREAS,
            colors={**_MODEL_STATES, "registered": NONE},
            runbook="daybreakmodelnotready",
            queries=(query("max by (namespace, state) (daybreak_models{HERE})", "{{state}}"),),
        ),
        Panel(
            title="Wanted without a ready replica",
            shows="How long each model has been wanted without a ready replica; 0 if it has one, or if it is not "
            "wanted.",
            bad="Longer than its *Last wake*: see *Replicas that are missing* and *Replicas by state*.",
            unit=Unit.SECONDS,
            runbook="daybreakmodelnotready",
            queries=(query(_of_model("wake_elapsed_seconds"), "{{model}}"),),
        ),
        Panel(
            title="Last wake",
            shows="How long the last wake of each model took, from the first request to the first ready replica.",
            bad="Longer than the deadlines of clients: keep a replica with `min_replicas`, or name a `fallback`.",
            unit=Unit.SECONDS,
            runbook="daybreakmodelnotready",
            queries=(query(_of_model("wake_last_seconds"), "{{model}}"),),
        ),
        Panel(
            title="Replicas by state",
            shows="Replicas that workers report, by model and state.",
            bad="`failed`: the engine of a replica does not start, and its worker tries again at growing intervals.",
            unit=Unit.COUNT,
            colors={f".* {state}": color for state, color in _REPLICA_STATES.items()},
            runbook="daybreakreplicasfail",
            queries=(
                query(
                    "max by (namespace, model, state) (daybreak_model_replicas{HERE})", "{{model}} {{state}}"
                ),
            ),
        ),
        Panel(
            title="Replicas that are missing",
            shows="Replicas that each model should have, and those of them for which no worker has room.",
            bad="`without room` above 0 for minutes: add a worker, or see the reason in `daybreak models show`.",
            unit=Unit.COUNT,
            colors={".* without room": BAD, ".* wanted": FINE},
            runbook="daybreakmodelnotready",
            queries=(
                query(_of_model("wanted_replicas"), "{{model}} wanted"),
                query(_of_model("unplaced_replicas"), "{{model}} without room"),
            ),
        ),
        Panel(
            title="Workers and the manager",
            shows="Workers that hold their lease, by state. `needed`: how many workers the models need (KEDA's "
            "value). `manager`: 1 while a manager places models.",
            bad="`needed` above `active`: KEDA does not scale, or there are too few fixed workers. `manager` at 0: "
            "nobody places models.",
            unit=Unit.COUNT,
            colors={"active": GOOD, "draining": BUSY, "needed": LATE, "manager": NONE},
            runbook="daybreakmanagerabsent",
            queries=(
                query("max by (namespace, state) (daybreak_workers{HERE})", "{{state}}"),
                query("max by (namespace) (daybreak_workers_wanted{HERE})", "needed"),
                query("max by (namespace) (daybreak_manager_up{HERE})", "manager"),
            ),
        ),
    ),
)
