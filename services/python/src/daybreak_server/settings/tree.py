"""All settings in one typed tree. Only this module and ``fast_start_setting`` read Daybreak's environment variables.

:class:`Settings` itself reads neither a file nor the environment: tests and other code build it with the values that
they need. The command line and the Serve application call :func:`load_settings`. A process passes the tree to the
processes that it starts, as a file or as JSON.

The larger sections have modules of their own, and the others are here. The types of
:mod:`~daybreak_server.settings.rules` check single settings, and :mod:`~daybreak_server.settings.rules.fitting` checks
settings that depend on each other. The descriptions of the fields are the text of docs/settings.md, of ``daybreakd
settings`` and of the chart's schema.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, StringConstraints, model_validator

from daybreak_server.domain import policy
from daybreak_server.domain.kinds import PoolKind
from daybreak_server.domain.names import API_APPLICATION, POOL_NAME, REGISTRY, VARIABLES
from daybreak_server.domain.routing import RoutingPolicy
from daybreak_server.settings import sources
from daybreak_server.settings.batching import BatchingSettings
from daybreak_server.settings.bulk import BulkSettings
from daybreak_server.settings.http import DefaultPools, HttpSettings
from daybreak_server.settings.log import LogSettings
from daybreak_server.settings.router import RouterSettings
from daybreak_server.settings.rules import fitting
from daybreak_server.settings.rules.addresses import (
    Folder,
    ListeningHost,
    ModelPlace,
    absolute_folder,
)
from daybreak_server.settings.rules.numbers import (
    Count,
    Duration,
    DurationOrNone,
    Groups,
    Period,
    Port,
    Processors,
    Ranks,
    Share,
)
from daybreak_server.settings.rules.port_range import PortRange
from daybreak_server.settings.section import ComputedDefault, Section, checked
from daybreak_server.settings.sessions import SessionSettings
from daybreak_server.settings.sources import SettingsError
from daybreak_server.settings.stores import ArtifactSettings, RedisSettings, S3Settings
from daybreak_server.settings.tracing import TracingSettings
from daybreak_server.settings.workers import EngineSettings, WorkerSettings

__all__ = [
    "ArtifactSettings",
    "BatchingSettings",
    "BulkSettings",
    "DefaultPools",
    "EngineSettings",
    "HttpSettings",
    "LeaseSettings",
    "LogSettings",
    "MetricsSettings",
    "OperatorSettings",
    "PoolName",
    "PoolSettings",
    "RaySettings",
    "RedisSettings",
    "RouterSettings",
    "S3Settings",
    "Settings",
    "SettingsError",
    "TenantSettings",
    "TracingSettings",
    "WorkerSettings",
    "child_environment",
    "colours_wanted",
    "foreign_environment",
    "in_pod",
    "load_settings",
    "names_kubernetes",
    "visible_gpus",
]


def _pool_name(name: str) -> str:
    if name == API_APPLICATION:
        raise ValueError(
            "a pool must not be named `api`: the Serve application that answers HTTP has this name"
        )
    if name == REGISTRY:
        raise ValueError(
            "a pool must not be named `registry`: the registry of workers and models has this name in Redis"
        )
    return name


PoolName = Annotated[str, StringConstraints(pattern=POOL_NAME), AfterValidator(_pool_name)]
TenantName = str


class LeaseSettings(Section):
    """How long a group may keep its tasks and sessions without a sign of progress."""

    lease_s: Duration = Field(
        policy.LEASE_S,
        description="A group loses a task or session whose lease has not been renewed for this long, by its leader or "
        "the leader's watchdog. At most two seconds of an outage of Redis count towards this time. If "
        "lease_s is at least 4, a lease is renewed in time after an outage, so an outage ends no lease.",
    )
    stall_s: Duration = Field(
        policy.STALL_S,
        description="Maximum time for one step of a task, for a request to make progress, or for one batch of "
        "sessions. For batches, values below 60 count as 60. A group that takes longer counts as stalled, and "
        "restarts.",
    )
    load_stall_s: Duration = Field(
        policy.LOAD_STALL_S, description="Maximum time without progress while a group loads its model."
    )


class PoolSettings(Section):
    """One pool: a queue and the groups that serve it."""

    workload: Annotated[str, ComputedDefault("<pool>")] = Field(
        "video",
        description="Name of an installed workload, or `package.module:SPEC`. If unset, the installed workload that "
        "has the pool's name.",
    )
    kind: PoolKind | None = Field(
        None,
        description="Kind of the pool, which must be the workload's kind. If unset, the workload's kind.",
    )
    model: ModelPlace = Field(
        None,
        description="Folder with the model, or `s3://bucket/prefix`. Each node downloads a model from S3 once into "
        "`model_cache`, with the settings of `artifacts.s3`. If unset, the workload's built-in model.",
    )
    ranks: Ranks = Field(1, description="Number of ranks (processes) in a group.")
    groups: Groups = Field(
        1, description="Number of groups that `up` and `dev` run. On Kubernetes, the GeneratorPool decides."
    )
    device: Literal["auto", "cpu", "cuda"] = Field(
        "auto", description="Device of the ranks. `auto` selects CUDA if there is a GPU, or else the CPU."
    )
    cpus_per_rank: Processors = Field(1.0, description="Number of CPUs that Ray reserves for a rank.")
    gpus_per_rank: Processors = Field(
        1.0, description="Number of GPUs that Ray reserves for a rank, if the ranks run on GPUs."
    )
    retention_s: Period = Field(
        7 * 86400, description="How long Daybreak keeps an ended task with its events and files, in seconds."
    )
    max_queued: Count = Field(
        policy.MAX_QUEUED,
        description="Maximum number of waiting tasks, including delayed ones. Further submits get the error "
        "`queue_full`.",
    )
    checkpoint_s: Period = Field(
        60.0,
        description="Minimum time between two checkpoints, in seconds. A group that releases its task stores a "
        "checkpoint at once.",
    )
    progress_s: DurationOrNone = Field(
        0.25, description="Minimum time between two progress events, in seconds."
    )
    drain_s: DurationOrNone = Field(
        30.0,
        description="How long a draining group may take to finish its task or requests, or to find other groups for "
        "its sessions, in seconds. After this time, it releases its task and sessions, and stops its requests.",
    )
    capacity: Count | None = Field(
        None,
        description="How many requests a group of a pool of kind `online` holds at once; it refuses more, and the "
        "gateway tries another group. If unset, the workload's capacity.",
    )
    routing: RoutingPolicy | None = Field(
        None,
        description="How a request's group is chosen; see `router.policy`, which applies if this is unset. Only for "
        "pools of kind `online`.",
    )
    target_load: Share | None = Field(
        None,
        description="How many requests (kind `online`) or open sessions (kind `sessions`) each group should have. The "
        "number of groups that the pool needs is its waiting and running requests (or its open sessions) divided by "
        "`target_load`, rounded up. If unset, `capacity` (kind `online`) or `sessions.max_batch_size` (kind "
        "`sessions`). On Kubernetes, `targetLoad` of the GeneratorPool overrides it.",
    )
    ports: PortRange | None = Field(
        None,
        description="Range of ports for the leaders of a pool of kind `online`, such as `20100-20199`. Each leader "
        "listens on the first port of the range that is free on its host. A firewall then needs to open only these "
        "ports to gateways. If unset, any free port.",
    )
    batching: BatchingSettings | None = Field(
        None, description="Only for pools with the workload `embed` or `rerank`."
    )
    bulk: BulkSettings | None = Field(
        None,
        description="Only for pools of kind `online` whose workload also takes tasks, such as `embed` and `rerank`.",
    )
    sessions: SessionSettings | None = Field(
        None, description="A pool of kind `sessions` without this section has the defaults."
    )
    lease: LeaseSettings = LeaseSettings()
    options: dict[str, Any] = Field(
        default_factory=dict,
        description="Options of the workload, for example `dtype` of the video workload.",
    )

    @property
    def session_settings(self) -> SessionSettings:
        """The settings of streaming sessions; the defaults if none are set."""
        return self.sessions or SessionSettings()

    @property
    def not_for_jobs(self) -> tuple[str, ...]:
        """The names of settings that this pool sets and that a pool of kind ``jobs`` cannot have."""
        return tuple(
            name
            for name in ("capacity", "routing", "target_load", "ports", "bulk", "sessions")
            if getattr(self, name) is not None
        )

    @property
    def workload_options(self) -> dict[str, Any]:
        """The options that the workload gets: those of the settings, with `model` and `batching` if they are set."""
        found = self.options | ({"model": self.model} if self.model else {})
        return found | ({"batching": self.batching.values()} if self.batching is not None else {})

    @model_validator(mode="after")
    def _fit_together(self) -> Self:
        return checked(self, fitting.of_pool(self))


class TenantSettings(Section):
    """How much GPU time one tenant gets while others wait too. Until there are API keys, only clients on the server's
    own machine can choose another tenant than `default`."""

    weight: Share = Field(
        1.0, description="Share of the GPU time, relative to the weights of the other tenants."
    )


class OperatorSettings(Section):
    """The operator (`daybreakd operator`), which reconciles GeneratorPools on Kubernetes."""

    namespace: str | None = Field(
        None,
        description="Namespace of the GeneratorPools. If unset, the namespace of the pod or of the kubeconfig.",
    )
    host: ListeningHost = Field("0.0.0.0", description="Address to listen on for probes and metrics.")  # noqa: S104 - of a pod
    liveness_port: Port = Field(
        8080,
        description="Port of `/healthz`, which fails if the control loop of a pool hangs or has ended. 0 turns it off.",
    )
    metrics_port: Port = Field(9090, description="Port of `/metrics` for Prometheus. 0 turns it off.")


class AdminSettings(Section):
    """Administrators of the service."""

    token: str | None = Field(
        None,
        description="Secret that makes a client on another machine an administrator. The client sends it as "
        "`Authorization: Bearer …`. Clients on the server's own machine that connect to `localhost` are administrators "
        "without this secret.",
    )


class MetricsSettings(Section):
    """What `/metrics` shows."""

    tenants_max: Count = Field(
        policy.TENANTS_MAX,
        description="Maximum number of tenants of a pool that have separate series. All others are counted "
        "together, as `other`. A lower number removes no series that exists.",
    )


class RaySettings(Section):
    """How Ray nodes start."""

    fast_start: bool = Field(
        True,
        description="Whether to start Ray by its private functions, which is a few seconds faster. Daybreak uses them "
        "only with the Ray versions that it was tested with. In all other cases it uses the stock `ray start` and "
        "`ray.init`.",
    )


class Settings(Section):
    """Settings that belong to no section."""

    data_dir: Folder = Field(
        Path(".daybreak"),
        description="Folder in which `up`, `dev` and `gateway --embedded` keep their data, logs and tokens.",
    )
    model_cache: Annotated[Folder, ComputedDefault("<data_dir>/models")] = Field(
        Path(".daybreak/models"),
        description="Folder in which a node caches models from S3. If unset, the folder `models` in `data_dir`.",
    )
    redis: RedisSettings = RedisSettings()
    artifacts: ArtifactSettings = ArtifactSettings()
    http: HttpSettings = HttpSettings()
    pools: dict[PoolName, PoolSettings] = Field(
        default_factory=lambda: {"video": PoolSettings()},
        min_length=1,
        description="The key is the pool's name. If you name any pool, the default pool `video` exists only if you "
        "name it too.",
    )
    tenants: dict[TenantName, TenantSettings] = Field(
        default_factory=dict, description="The key is the tenant's name."
    )
    router: RouterSettings = RouterSettings()
    workers: WorkerSettings = WorkerSettings()
    admin: AdminSettings = AdminSettings()
    operator: OperatorSettings = OperatorSettings()
    metrics: MetricsSettings = MetricsSettings()
    tracing: TracingSettings = TracingSettings()
    log: LogSettings = LogSettings()
    ray: RaySettings = RaySettings()

    @model_validator(mode="after")
    def _fit_together(self) -> Self:
        return checked(self, fitting.of_all(self))

    @model_validator(mode="before")
    @classmethod
    def _dependent_defaults(cls, data: Any) -> Any:
        """Fill in defaults that depend on other settings: folders in ``data_dir``, workloads with a pool's name."""
        if not isinstance(data, Mapping):
            return data
        tree = dict(data)
        artifacts = tree.get("artifacts", {})
        if isinstance(artifacts, ArtifactSettings):
            artifacts = artifacts.model_dump(exclude_unset=True)
        try:
            folder = absolute_folder(Path(str(tree.get("data_dir", ".daybreak"))))
        except ValueError:  # the validation of data_dir reports it
            folder = Path("/")
        if isinstance(artifacts, Mapping) and "url" not in artifacts:
            tree["artifacts"] = {**artifacts, "url": (folder / "artifacts").as_uri()}
        if "model_cache" not in tree:
            tree["model_cache"] = str(folder / "models")
        if isinstance(pools := tree.get("pools"), Mapping):
            tree["pools"] = {
                name: {"workload": name, **pool} if isinstance(pool, Mapping) else pool
                for name, pool in pools.items()
            }
        return tree


def load_settings(config: Path | None = None, *, environ: Mapping[str, str] | None = None) -> Settings:
    """Load the settings of this process: the environment overrides the YAML file, which overrides the defaults.

    :param config: The YAML file. Without it, the file is the one that ``DAYBREAK_CONFIG`` names, if any.
    :param environ: The environment to read instead of this process's. An empty variable counts as unset.
    :raises SettingsError: with a line for each unknown name, wrong value or unreadable file.
    """
    variables = os.environ if environ is None else environ  # noqa: TID251 - allowed here
    return sources.load(Settings, config=config, environ=variables)


def child_environment(changes: Mapping[str, str | None]) -> dict[str, str]:
    """The environment for a child process: this process's with ``changes``; ``None`` removes a variable."""
    merged = {**os.environ, **changes}  # noqa: TID251 - allowed here
    return {name: value for name, value in merged.items() if value is not None}


def foreign_environment(changes: Mapping[str, str]) -> dict[str, str]:
    """The environment for a foreign program: this process's with ``changes``, but without Daybreak's settings.

    The settings may contain secrets.
    """
    kept = {name: value for name, value in os.environ.items() if not name.startswith(VARIABLES)}  # noqa: TID251 - allowed here
    return {**kept, **changes}


def visible_gpus() -> str | None:
    """The GPUs that processes on this machine may use, if the environment limits them (CUDA_VISIBLE_DEVICES)."""
    return os.environ.get("CUDA_VISIBLE_DEVICES")  # noqa: TID251 - allowed here


def names_kubernetes() -> bool:
    """Whether the environment names a Kubernetes cluster. It does in a pod, or if KUBECONFIG is set."""
    return any(os.environ.get(name) for name in ("KUBERNETES_SERVICE_HOST", "KUBECONFIG"))  # noqa: TID251 - allowed here


def in_pod() -> bool:
    """Whether this process runs in a pod of Kubernetes."""
    return bool(os.environ.get("KUBERNETES_SERVICE_HOST"))  # noqa: TID251 - allowed here


def colours_wanted() -> bool:
    """Whether a terminal may get colours. NO_COLOR forbids them (https://no-color.org)."""
    return not os.environ.get("NO_COLOR")  # noqa: TID251 - allowed here
