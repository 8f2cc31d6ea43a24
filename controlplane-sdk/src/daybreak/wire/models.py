"""Models that external workers serve: how they are registered, and what clients see of them."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any, Literal, Self

from pydantic import AliasChoices, Field, StringConstraints, model_validator

from daybreak.wire.base import RequestModel, ResponseModel
from daybreak.wire.pools import WakeHistory
from daybreak.wire.wake import Wake
from daybreak.wire.workers import Alias, WorkerGpu, WorkerId, WorkerModel

EngineName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9._-]{0,62}$")]


class ModelState(StrEnum):
    """The states of a model, from its registration to its end."""

    REGISTERED = "registered"
    """No replica runs and none is wanted. The next request starts one."""
    PLACING = "placing"
    """A replica is wanted, and no worker has room for it."""
    STARTING = "starting"
    """A worker starts a replica."""
    READY = "ready"
    """At least one replica answers requests."""
    DRAINING = "draining"
    """The model has been deleted, and its replicas finish their requests."""
    FAILED = "failed"
    """No replica is ready, and the workers could not start one. They try again."""


class RegisterModelRequest(RequestModel):
    """``POST /v1/models/register``.

    ``source`` (or ``model_name``) is what the engine loads: a folder, a file, or the name of a model on a hub. ``args``
    are options of the engine. The most common options may also be fields of the request.
    """

    alias: Alias
    source: str = Field(min_length=1, max_length=1024, validation_alias=AliasChoices("source", "model_name"))
    engine: EngineName = "vllm"
    args: dict[str, Any] = Field(default_factory=dict)
    max_model_len: int | None = Field(None, ge=1)
    gpu_memory_utilization: float | None = Field(None, gt=0, le=1)
    tensor_parallel_size: int | None = Field(None, ge=1)
    dtype: str | None = None
    quantization: str | None = None
    memory_bytes: int | None = Field(None, ge=1)
    """Memory that one replica needs. If absent, a replica shares its devices with no other replica."""
    gpus: int | None = Field(None, ge=1, le=64)
    """Number of GPUs of one replica. The default is ``tensor_parallel_size`` if that is set, and 1 otherwise."""
    replicas: int = Field(1, ge=1, le=1000)
    """The maximum number of replicas."""
    min_replicas: int = Field(0, ge=0, le=1000)
    """How many replicas run even without any request."""
    target_load: float = Field(8.0, gt=0)
    """The requests that one replica should have. If the replicas have more, another one starts, up to ``replicas``."""
    idle_s: float | None = Field(None, gt=0)
    """After this many seconds without a request, the replicas beyond ``min_replicas`` stop."""
    fallback: Alias | None = None
    """The model that answers while no replica of this one is ready."""

    @model_validator(mode="after")
    def _fit_together(self) -> Self:
        if self.min_replicas > self.replicas:
            raise ValueError("min_replicas is greater than replicas; raise replicas")
        if self.fallback == self.alias:
            raise ValueError("fallback is the model itself; name another model, or leave it out")
        twice = [name for name in TOP_LEVEL_ARGS if getattr(self, name) is not None and name in self.args]
        if twice:
            raise ValueError(f"{twice[0]} is given twice: in args and as a field; keep one of them")
        return self

    @property
    def engine_args(self) -> dict[str, Any]:
        """All options of the engine."""
        beside = {name: getattr(self, name) for name in TOP_LEVEL_ARGS}
        return {**self.args, **{name: value for name, value in beside.items() if value is not None}}


TOP_LEVEL_ARGS = ("max_model_len", "gpu_memory_utilization", "tensor_parallel_size", "dtype", "quantization")
"""The options of engines that may also be fields of the request."""


class ModelPair(ResponseModel):
    """A pair of languages: codes (``en``, ``de``) and names (``English``, ``German``)."""

    source: str
    target: str
    source_name: str
    target_name: str


class Model(ResponseModel):
    """A model as OpenAI's API shows it, with more fields. A pool that answers requests or serves sessions is listed
    as a model too. Its entry has ``pool``, ``kind`` and, if the pool has them, ``pairs`` and ``notice``.
    """

    id: str
    object: Literal["model"] = "model"
    created: int
    """Unix time in seconds."""
    owned_by: str
    pool: str | None = None
    kind: str | None = None
    """The kind of the pool: ``online`` or ``sessions``."""
    pairs: list[ModelPair] | None = None
    """The pairs of languages of a pool of kind ``sessions``; absent if only the pool's groups know the pairs."""
    notice: str | None = None
    """What every user of the pool should read, for example that its model knows few words."""
    state: ModelState | None = None
    reason: str | None = None
    source: str | None = None
    engine: str | None = None
    args: dict[str, Any] | None = None
    memory_bytes: int | None = None
    gpus: int | None = None
    replicas: int | None = None
    min_replicas: int | None = None
    target_load: float | None = None
    idle_s: float | None = None
    fallback: str | None = None
    wanted: int | None = None
    """How many replicas the model should have now."""
    ready: int | None = None
    workers: list[str] | None = None
    """The workers of the model's ready replicas. A worker with two of them is listed twice."""
    wake: Wake | None = None
    """Present while the model starts: the current phase, and when the model should be ready."""


class ModelList(ResponseModel):
    """``GET /v1/models``."""

    object: Literal["list"] = "list"
    data: list[Model]


class ModelDeleted(ResponseModel):
    """``DELETE /v1/models/{alias}``."""

    id: str
    object: Literal["model"] = "model"
    deleted: bool = True


class Worker(ResponseModel):
    """A worker that holds its lease."""

    id: WorkerId
    url: str | None = None
    """The address at which gateways reach the worker. Only clients that may change models see it."""
    version: str
    engines: list[str]
    draining: bool
    gpus: list[WorkerGpu]
    memory_bytes: int
    memory_free_bytes: int
    models: list[WorkerModel]


class ServingPoolHealth(ResponseModel):
    """A pool of kind ``online`` or ``sessions``, as ``GET /health`` shows it. The request starts no group."""

    workload: str
    model: str | None = None
    """The name by which clients may ask for the pool's model."""
    groups_ready: int
    groups_max: int
    gpus_per_group: float | None = None
    """The number of GPUs of a group; absent if its ranks run on CPUs."""
    wake: WakeHistory
    """The pool's wake. At zero, its ``eta_s`` is the duration of the last wake, and absent before the first wake."""


class ServingHealth(ResponseModel):
    """``GET /health``: whether models can be served, and the pools that serve requests or sessions."""

    status: Literal["ok"] = "ok"
    manager: str | None = None
    """The process that decides which worker runs which model; without one, no model starts or moves."""
    workers: int
    """Workers that hold their lease."""
    models: dict[ModelState, int]
    """How many models are in each state; states without a model are absent."""
    pools: dict[str, ServingPoolHealth] = Field(default_factory=dict)
    """Each pool of kind ``online`` or ``sessions``, by its name."""


class WorkerList(ResponseModel):
    """``GET /v1/workers`` and ``GET /workers``."""

    workers: list[Worker]
    manager: str | None = None
    """The process that decides which worker runs which model."""
