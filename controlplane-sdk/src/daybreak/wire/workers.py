"""Workers: processes outside Ray that run model servers (*engines*), and their messages to and from a gateway.

A worker registers (:class:`WorkerRegistration`), and then sends a :class:`WorkerHeartbeat` every ``heartbeat_s`` and
whenever the state of one of its models changes. Each reply lists the models that the worker should run. A worker
whose heartbeats stop for ``lease_s`` counts as lost; its next heartbeat gets 404, and it registers again.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any

from pydantic import Field, StringConstraints

from daybreak.wire.base import RequestModel, ResponseModel

WORKER_ID = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$"
ALIAS = r"^[A-Za-z0-9][A-Za-z0-9._:/@-]{0,127}$"
MODEL_HEADER = "Daybreak-Model"
"""In a request to a worker, the alias of the model. In an answer, the model that answered."""
WORKER_HEADER = "Daybreak-Worker"
"""In a request to a worker, the worker that should receive it. In an answer, the worker that answered."""

WorkerId = Annotated[str, StringConstraints(pattern=WORKER_ID)]
Alias = Annotated[str, StringConstraints(pattern=ALIAS)]


class WorkerModelState(StrEnum):
    """What a replica of a model does on its worker."""

    STARTING = "starting"
    """Its engine loads the model, or the replica waits for a GPU that another replica still has."""
    READY = "ready"
    DRAINING = "draining"
    """It finishes the requests that it has, gets no more, and then stops."""
    FAILED = "failed"
    """Its engine has ended or cannot be started, or fails again and again. The worker starts it again, after longer and
    longer pauses."""


class WorkerGpu(RequestModel):
    """A GPU of a worker. ``index`` is its number in the order of the PCI bus, as ``nvidia-smi`` shows it."""

    index: int
    name: str
    memory_bytes: int
    memory_free_bytes: int


class WorkerRegistration(RequestModel):
    """``POST /v1/workers``.

    ``incarnation`` is random for each process, and distinguishes two workers with the same id. ``url`` is where
    gateways send the requests for the worker's models.
    """

    id: WorkerId
    incarnation: str
    url: str
    version: str
    engines: list[str]
    gpus: list[WorkerGpu]
    memory_bytes: int
    memory_free_bytes: int


class WorkerRegistered(ResponseModel):
    """The response to a registration: the interval of heartbeats, and the lease, which each heartbeat renews."""

    heartbeat_s: float
    lease_s: float


class WorkerModel(RequestModel):
    """A replica of a model on a worker.

    ``requests``: how many requests are in flight, at most ``capacity``. If the replica is not ready, ``reason`` and
    ``last_lines`` (of the engine's output) say why.
    """

    alias: str
    state: WorkerModelState
    gpus: list[int] = Field(default_factory=list)
    reason: str | None = None
    last_lines: list[str] = Field(default_factory=list)
    requests: int = 0
    capacity: int


class WorkerHeartbeat(RequestModel):
    """``PUT /v1/workers/{id}``."""

    incarnation: str
    gpus: list[WorkerGpu]
    memory_bytes: int
    memory_free_bytes: int
    draining: bool
    models: list[WorkerModel]


class AssignedModel(ResponseModel):
    """A replica of a model that a worker should run.

    An alias that is listed twice has two replicas. ``args`` are options of the engine, such as ``max_model_len``.
    ``gpus`` are the indices of the replica's GPUs. If there are none, the replica runs on the CPU.
    """

    alias: Alias
    source: str
    engine: str
    args: dict[str, Any] = Field(default_factory=dict)
    memory_bytes: int | None = None
    gpus: list[int] = Field(default_factory=list)


class WorkerAssignments(ResponseModel):
    """The response to a heartbeat: the models that the worker should run, and no others."""

    heartbeat_s: float
    models: list[AssignedModel]
