"""All settings, as one typed tree. This is the only module that reads the environment.

:class:`Settings` itself is pure: tests and other code build it with the values that they need. A process that a
person starts calls :func:`load_settings`, and passes the tree to the processes that it starts, as a file or as JSON.

The types of :mod:`~daybreak_server.settings.rules` check single settings, and
:mod:`~daybreak_server.settings.rules.fitting` checks settings that depend on each other. The descriptions of the fields
are the text of docs/settings.md, of ``daybreakd settings`` and of the chart's schema.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    model_validator,
)

from daybreak_server.domain import policy
from daybreak_server.domain.kinds import PoolKind
from daybreak_server.domain.names import API_APPLICATION, POOL_NAME
from daybreak_server.settings import sources
from daybreak_server.settings.rules import fitting, redis_url
from daybreak_server.settings.rules.addresses import (
    FilesUrl,
    Folder,
    KeyPrefix,
    ListeningHost,
    ModelPlace,
    RedisUrl,
    RegionName,
    SentinelAddresses,
    ServerUrl,
    absolute_folder,
)
from daybreak_server.settings.rules.http import Hosts, Networks, Origins, RootPath
from daybreak_server.settings.rules.numbers import (
    Bytes,
    Count,
    Duration,
    DurationOrNone,
    Groups,
    Period,
    Port,
    Processors,
    Ranks,
    Replicas,
    Share,
    Timeout,
)
from daybreak_server.settings.sources import SettingsError

__all__ = [
    "ArtifactSettings",
    "HttpSettings",
    "LeaseSettings",
    "OperatorSettings",
    "PoolName",
    "PoolSettings",
    "RaySettings",
    "RedisSettings",
    "S3Settings",
    "Settings",
    "SettingsError",
    "TenantSettings",
    "child_environment",
    "load_settings",
    "names_kubernetes",
]


def _pool_name(name: str) -> str:
    if name == API_APPLICATION:
        raise ValueError(
            "a pool must not be named `api`: the Serve application that answers HTTP has this name"
        )
    return name


def _fits(settings: _Checked, problems: Iterable[str]) -> _Checked:
    """Return the settings. :raises ValueError: with a line for each problem, if there are any."""
    if found := list(problems):
        raise ValueError("\n".join(found))
    return settings


PoolName = Annotated[str, StringConstraints(pattern=POOL_NAME), AfterValidator(_pool_name)]
TenantName = str
_Checked = TypeVar("_Checked")


class _Group(BaseModel):
    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        validate_default=True,
        allow_inf_nan=False,
        hide_input_in_errors=True,  # it may be a password
    )


class RedisSettings(_Group):
    """The store of tasks: Redis ≥ 7.0 or Valkey, with AOF on and `noeviction`."""

    url: RedisUrl = Field(
        None,
        description="`redis://host:6379/0`, `rediss://…` (TLS) or `unix:///path?db=0`; unset: an embedded Valkey "
        "(only for `up` and `dev`). Allowed options after `?`: `" + "`, `".join(redis_url.OPTIONS) + "`.",
    )
    password_file: str | None = Field(
        None,
        description="File with the password, if the URL has none. It is read for each new connection, so a changed "
        "password (Kubernetes updates the file when a Secret changes) needs no restart.",
    )
    prefix: KeyPrefix = Field("daybreak", description="First part of every key.")
    timeout_s: Timeout = Field(5.0, description="Timeout of one command, in seconds.")
    ca_file: str | None = Field(
        None, description="For `rediss://`: CA certificates that verify the server; unset: the system's."
    )
    cert_file: str | None = Field(
        None, description="For `rediss://`: the client certificate, if the server asks for one."
    )
    key_file: str | None = Field(None, description="The private key of `cert_file`.")
    sentinels: SentinelAddresses = Field(
        (),
        description="Addresses of the Sentinels that know the master: `host:port,host:port`. The URL then gives the "
        "scheme, user, password and database; its host is ignored. `rediss://` applies to Sentinels, too.",
    )
    sentinel_master: str | None = Field(
        None, description="Name of the master in the Sentinels' configuration."
    )
    sentinel_password: str | None = Field(None, description="Password of the Sentinels, if they have one.")
    sentinel_password_file: str | None = Field(
        None, description="File with the password of the Sentinels; read for each new connection."
    )
    wait_replicas: Replicas = Field(
        0,
        description="Number of replicas that must have a task before it is accepted, else 503. With 0, a fail-over "
        "may lose the tasks accepted last.",
    )

    @model_validator(mode="after")
    def _fit_together(self) -> Self:
        return _fits(self, fitting.of_redis(self))


class S3Settings(_Group):
    """How to reach an S3 server; credentials come from two files, or from the usual AWS variables, files or roles."""

    endpoint_url: ServerUrl = Field(None, description="URL of the S3 server; unset: AWS.")
    region: RegionName = Field(None, description="Region; unset: from the AWS variables.")
    path_style: bool = Field(
        False, description="`https://host/bucket/key` instead of `https://bucket.host/key`."
    )
    public_endpoint_url: ServerUrl = Field(
        None, description="URL of the S3 server in presigned URLs, if clients reach it by another address."
    )
    access_key_id_file: Path | None = Field(
        None,
        description="File with the access key ID. It and the secret are read for each request, so changed keys "
        "(Kubernetes updates the files when a Secret changes) need no restart.",
    )
    secret_access_key_file: Path | None = Field(None, description="File with the secret access key.")
    presign: bool = Field(
        True,
        description="Redirect downloads to presigned URLs. If off, Daybreak sends the files itself, and clients "
        "never reach S3.",
    )

    @model_validator(mode="after")
    def _fit_together(self) -> Self:
        return _fits(self, fitting.of_s3(self))

    @property
    def key_files(self) -> tuple[Path, Path] | None:
        """The files with the access key ID and the secret, if they are set."""
        if self.access_key_id_file is None or self.secret_access_key_file is None:
            return None
        return self.access_key_id_file, self.secret_access_key_file


class ArtifactSettings(_Group):
    """Where the artifacts of tasks are stored."""

    url: FilesUrl = Field(
        "file:.daybreak/artifacts",
        description="`file:///folder` or `s3://bucket/prefix`; unset: `artifacts` in the data folder.",
    )
    s3: S3Settings = S3Settings()
    url_expires_s: Duration = Field(900, description="Lifetime of a presigned URL, in seconds.")


class HttpSettings(_Group):
    """The HTTP server."""

    host: ListeningHost = Field("127.0.0.1", description="Address to listen on; `0.0.0.0`: all networks.")
    port: Port = Field(8000, description="Port to listen on; 0: any free port.")
    max_body_bytes: Bytes = Field(1 << 20, description="Longest request body; a longer one gets `too_large`.")
    max_streams: Count = Field(10_000, description="Most open SSE and WebSocket streams in one process.")
    max_streams_per_tenant: Count = Field(
        10_000, description="Most open streams of one tenant in one process."
    )
    heartbeat_s: Duration = Field(15.0, description="Seconds between SSE comments on an idle stream.")
    allowed_hosts: Hosts = Field(
        (),
        description="Names allowed in the `Host` header, besides IP addresses and `localhost`: "
        "`daybreak.example.com,*.internal`, or `*`. Empty: no others for requests from this machine, any for the rest.",
    )
    allowed_origins: Origins = Field(
        (),
        description="Other sites whose pages may call the API from a browser: `https://app.example.com`, or `*`.",
    )
    root_path: RootPath = Field(
        "", description="Path below which a proxy serves the API, such as `/daybreak`; links start with it."
    )
    trusted_proxies: Networks = Field(
        (),
        description="Addresses of proxies whose `X-Forwarded-Prefix` replaces `root_path`: `10.0.0.0/8`.",
    )


class LeaseSettings(_Group):
    """When a leader or a step counts as lost."""

    lease_s: Duration = Field(
        policy.LEASE_S,
        description="A leader that does not renew its lease for this long loses its task; an outage of Redis does "
        "not count.",
    )
    stall_s: Duration = Field(policy.STALL_S, description="Longest step; a longer one counts as stalled.")
    load_stall_s: Duration = Field(
        policy.LOAD_STALL_S, description="Longest time without progress while the model loads."
    )


class PoolSettings(_Group):
    """One pool: a queue and the groups that serve it."""

    workload: str = Field(
        "video",
        description="An installed workload, or `package.module:SPEC`; unset in a file and the environment: "
        "the workload with the pool's name.",
    )
    kind: PoolKind | None = Field(
        None, description="Kind of the pool; must match that of the workload, which is the default."
    )
    model: ModelPlace = Field(
        None,
        description="Model folder, or `s3://bucket/prefix`, from which each node downloads the model once into "
        "`model_cache`, with the settings of `artifacts.s3`; unset: the workload's built-in model.",
    )
    ranks: Ranks = Field(1, description="Ranks of one group.")
    groups: Groups = Field(1, description="Groups that `up` runs.")
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="`auto`: CUDA if there is a GPU.")
    cpus_per_rank: Processors = Field(1.0, description="CPUs that Ray reserves for a rank.")
    gpus_per_rank: Processors = Field(1.0, description="GPUs that Ray reserves for a rank on a GPU.")
    retention_s: Period = Field(
        7 * 86400, description="How long an ended task is kept, with its events and files, in seconds."
    )
    max_queued: Count = Field(
        policy.MAX_QUEUED, description="Most waiting tasks; further ones get `queue_full`."
    )
    checkpoint_s: Period = Field(60.0, description="Shortest time between two checkpoints, in seconds.")
    progress_s: DurationOrNone = Field(
        0.25, description="Shortest time between two progress events, in seconds."
    )
    drain_s: DurationOrNone = Field(
        30.0, description="How long a draining group may take to finish its task, in seconds."
    )
    lease: LeaseSettings = LeaseSettings()
    options: dict[str, Any] = Field(
        default_factory=dict, description="Options of the workload: dtype, attention, …"
    )

    @property
    def workload_options(self) -> dict[str, Any]:
        """The options that the workload gets: those of the settings, with the model if one is set."""
        return self.options | ({"model": self.model} if self.model else {})

    @model_validator(mode="after")
    def _fit_together(self) -> Self:
        return _fits(self, fitting.of_pool(self))


class TenantSettings(_Group):
    """The share of one tenant."""

    weight: Share = Field(1.0, description="Share of the groups, relative to the weights of other tenants.")


class OperatorSettings(_Group):
    """`daybreakd operator`, which reconciles GeneratorPools on Kubernetes."""

    namespace: str | None = Field(
        None, description="Namespace of the GeneratorPools; unset: that of the pod or the kubeconfig."
    )
    host: ListeningHost = Field("0.0.0.0", description="Address to listen on for probes and metrics.")  # noqa: S104 - of a pod
    liveness_port: Port = Field(
        8080, description="Port of `/healthz`, which fails when the loop of a pool hangs; 0: off."
    )
    metrics_port: Port = Field(9090, description="Port of `/metrics` for Prometheus; 0: off.")


class RaySettings(_Group):
    """How nodes of Ray start."""

    fast_start: bool = Field(
        True,
        description="Start Ray through its private functions, if its version is one that was tested. If off, or "
        "with another version, the stock `ray start` and `ray.init` run, which take a few seconds longer.",
    )


class Settings(_Group):
    """Daybreak's settings."""

    data_dir: Folder = Field(
        Path(".daybreak"), description="Where `up` and `dev` keep data, logs and tokens."
    )
    model_cache: Folder = Field(
        Path(".daybreak/models"),
        description="Where a node caches models from `s3://`; unset: `models` in the data folder.",
    )
    redis: RedisSettings = RedisSettings()
    artifacts: ArtifactSettings = ArtifactSettings()
    http: HttpSettings = HttpSettings()
    pools: dict[PoolName, PoolSettings] = Field(
        default_factory=lambda: {"video": PoolSettings()},
        min_length=1,
        description="Pools by name; naming any replaces the default pool `video`.",
    )
    tenants: dict[TenantName, TenantSettings] = Field(default_factory=dict, description="Tenants by name.")
    operator: OperatorSettings = OperatorSettings()
    ray: RaySettings = RaySettings()

    @model_validator(mode="after")
    def _fit_together(self) -> Self:
        return _fits(self, fitting.of_all(self))

    @model_validator(mode="before")
    @classmethod
    def _dependent_defaults(cls, data: Any) -> Any:
        """Fill in defaults that depend on other settings: folders in ``data_dir``, a workload named as its pool."""
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
    variables = os.environ if environ is None else environ  # noqa: TID251 - the one place
    return sources.load(Settings, config=config, environ=variables)


def child_environment(changes: Mapping[str, str | None]) -> dict[str, str]:
    """The environment for a child process: this process's with ``changes``; ``None`` removes a variable."""
    merged = {**os.environ, **changes}  # noqa: TID251 - the one place
    return {name: value for name, value in merged.items() if value is not None}


def names_kubernetes() -> bool:
    """Whether the environment names a Kubernetes cluster: in a pod, or by KUBECONFIG."""
    return any(os.environ.get(name) for name in ("KUBERNETES_SERVICE_HOST", "KUBECONFIG"))  # noqa: TID251 - the one place
