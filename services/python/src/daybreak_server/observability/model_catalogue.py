"""The metrics of models on external workers. ``catalogue`` lists them with all other metrics.

Their values are in the registry, which is in Redis, so every gateway exports the same values.
"""

from __future__ import annotations

from daybreak_server.observability.pool_catalogue import API
from daybreak_server.ports.metrics import Metric, MetricType, Source


def _gauge(name: str, text: str, *labels: str) -> Metric:
    return Metric(
        name=f"daybreak_{name}",
        type=MetricType.GAUGE,
        help=text,
        labels=labels,
        exporters=API,
        source=Source.REDIS,
    )


MODELS = _gauge(
    "models",
    "Registered models, by state: `registered` (no replica is wanted), `placing`, `starting`, `ready`, `failed` or "
    "`draining`.",
    "state",
)
MODEL_REPLICAS = _gauge(
    "model_replicas",
    "Replicas that workers report, by state: `starting`, `ready`, `failed` or `draining`.",
    "model",
    "state",
)
MODEL_WANTED = _gauge("model_wanted_replicas", "Replicas that a model should have now.", "model")
MODEL_UNPLACED = _gauge(
    "model_unplaced_replicas",
    "Wanted replicas that are not placed, because no worker has both the engine and room.",
    "model",
)
MODEL_WAKE_ELAPSED = _gauge(
    "model_wake_elapsed_seconds",
    "How long a model has been wanted without a ready replica; 0 if it has one or is not wanted.",
    "model",
)
MODEL_WAKE_LAST = _gauge(
    "model_wake_last_seconds",
    "Duration of the last wake of a model, from the first request to the first ready replica.",
    "model",
)
WORKERS = _gauge("workers", "Workers that hold their lease, by state: `active` or `draining`.", "state")
WORKERS_WANTED = _gauge("workers_wanted", "How many workers the models need. KEDA reads this number.")
MANAGER_UP = _gauge("manager_up", "1 if a manager holds the lease `placement`, so that models are placed.")

ALL: tuple[Metric, ...] = tuple(value for value in list(globals().values()) if isinstance(value, Metric))
