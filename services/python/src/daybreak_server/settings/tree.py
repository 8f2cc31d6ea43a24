"""All settings: one typed tree, from a YAML file and the environment; only this file reads the environment.

:class:`Settings` itself is pure: tests and other code build it with the values that they want. Processes that
a person starts call :func:`load_settings`, and hand the tree on to what they start.
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
        raise ValueError("a pool's name is not `api`: so is the Serve application that answers HTTP")
    return name


def _fits(settings: _Checked, problems: Iterable[str]) -> _Checked:
    """The same settings. :raises ValueError: with a line for each problem."""
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
        description="`redis://host:6379/0`, `rediss://…` (TLS) or `unix:///path?db=0`; absent: an embedded Valkey "
        "(only `up` and `dev`). Options behind `?`: `"
        + "`, `".join(redis_url.OPTIONS)
        + "`; others are refused.",
    )
    password_file: str | None = Field(
        None,
        description="A file with the password, where the URL has none. It is read anew for each connection: who "
        "replaces it (Kubernetes does, when a Secret changes) needs to restart nobody.",
    )
    prefix: KeyPrefix = Field("daybreak", description="First part of every key.")
    timeout_s: Timeout = Field(5.0, description="Seconds that one command may take.")
    ca_file: str | None = Field(
        None, description="For `rediss://`: certificates of who signed the server's; absent: the system's."
    )
    cert_file: str | None = Field(
        None, description="For `rediss://`: our own certificate, where the server asks for one."
    )
    key_file: str | None = Field(None, description="The key of `cert_file`.")
    sentinels: SentinelAddresses = Field(
        (),
        description="Sentinels, as `host:port,host:port`: they say where the master is. The URL then gives the "
        "scheme, user, password and database; its host counts for nothing. `rediss://` is for them too.",
    )
    sentinel_master: str | None = Field(None, description="What the Sentinels call the master.")
    sentinel_password: str | None = Field(
        None, description="The Sentinels' own password, where they have one."
    )
    sentinel_password_file: str | None = Field(None, description="A file with it, read in the same way.")
    wait_replicas: Replicas = Field(
        0,
        description="A task is accepted when so many replicas have it, else 503: what a fail-over may lose else.",
    )

    @model_validator(mode="after")
    def _fit_together(self) -> Self:
        return _fits(self, fitting.of_redis(self))


class S3Settings(_Group):
    """How to reach an S3 server; credentials come from two files, or from the usual AWS variables, files or roles."""

    endpoint_url: ServerUrl = Field(None, description="Absent: AWS.")
    region: RegionName = Field(None, description="Absent: from the AWS variables.")
    path_style: bool = Field(
        False, description="`https://host/bucket/key` instead of `https://bucket.host/key`."
    )
    public_endpoint_url: ServerUrl = Field(
        None, description="What presigned URLs name, where clients reach the server by another address."
    )
    access_key_id_file: Path | None = Field(
        None,
        description="A file with the access key. Both are read anew for each request: who replaces them (Kubernetes "
        "does, when a Secret changes) needs to restart nobody.",
    )
    secret_access_key_file: Path | None = Field(None, description="A file with its secret.")
    presign: bool = Field(True, description="Off: Daybreak sends the bytes itself, and clients never see S3.")

    @model_validator(mode="after")
    def _fit_together(self) -> Self:
        return _fits(self, fitting.of_s3(self))

    @property
    def key_files(self) -> tuple[Path, Path] | None:
        """Access key and secret, where they are in files."""
        if self.access_key_id_file is None or self.secret_access_key_file is None:
            return None
        return self.access_key_id_file, self.secret_access_key_file


class ArtifactSettings(_Group):
    """The store of files."""

    url: FilesUrl = Field(
        "file:.daybreak/artifacts",
        description="`file:///folder` or `s3://bucket/prefix`; absent: `artifacts` in the data folder.",
    )
    s3: S3Settings = S3Settings()
    url_expires_s: Duration = Field(900, description="How long a presigned URL lives.")


class HttpSettings(_Group):
    """The HTTP server."""

    host: ListeningHost = Field("127.0.0.1", description="Address to listen on; `0.0.0.0` is every network.")
    port: Port = Field(8000, description="Port to listen on; 0 takes a free one.")
    max_body_bytes: Bytes = Field(1 << 20, description="A longer request body is refused with `too_large`.")
    max_streams: Count = Field(10_000, description="Open SSE and WebSocket streams in one process.")
    max_streams_per_tenant: Count = Field(10_000, description="The same, for each tenant.")
    heartbeat_s: Duration = Field(15.0, description="Seconds between SSE comments.")
    allowed_hosts: Hosts = Field(
        (),
        description="Names that the Host of a request may have, beside addresses and `localhost`: "
        "`daybreak.example.com,*.internal`, or `*`. Empty: none for requests from this machine, any for others.",
    )
    allowed_origins: Origins = Field(
        (),
        description="Other sites whose pages may use the API from a browser: `https://app.example.com`, or `*`.",
    )
    root_path: RootPath = Field(
        "", description="Path below which a proxy serves the API, such as `/daybreak`: links begin with it."
    )
    trusted_proxies: Networks = Field(
        (),
        description="Addresses of proxies whose `X-Forwarded-Prefix` counts instead of `root_path`: `10.0.0.0/8`.",
    )


class LeaseSettings(_Group):
    """How long silence is allowed."""

    lease_s: Duration = Field(
        policy.LEASE_S,
        description="A leader that is silent for so long loses its task; an outage of Redis does not count.",
    )
    stall_s: Duration = Field(policy.STALL_S, description="A step that takes longer is a stall.")
    load_stall_s: Duration = Field(policy.LOAD_STALL_S, description="The same while the model loads.")


class PoolSettings(_Group):
    """One pool: a queue and the groups that serve it."""

    workload: str = Field(
        "video",
        description="An installed workload, or `package.module:SPEC`; absent in a file or the environment: "
        "the one that has the pool's name.",
    )
    kind: PoolKind | None = Field(
        None, description="What its groups do; the workload says so itself, and is checked against this."
    )
    model: ModelPlace = Field(
        None,
        description="Folder of the model, or `s3://bucket/prefix`, from where each node fetches it once into "
        "`model_cache`, by `artifacts.s3`; absent: the workload's own.",
    )
    ranks: Ranks = Field(1, description="Ranks of one group.")
    groups: Groups = Field(1, description="Groups that `up` runs.")
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="`auto`: CUDA where there is one.")
    cpus_per_rank: Processors = Field(1.0, description="CPUs that Ray reserves for a rank.")
    gpus_per_rank: Processors = Field(1.0, description="Only where the device is a GPU.")
    retention_s: Period = Field(7 * 86400, description="Ended tasks are kept so long, with events and files.")
    max_queued: Count = Field(
        policy.MAX_QUEUED, description="More waiting tasks are refused with `queue_full`."
    )
    checkpoint_s: Period = Field(60.0, description="At most one checkpoint in so many seconds.")
    progress_s: DurationOrNone = Field(0.25, description="At most one progress event in so many seconds.")
    drain_s: DurationOrNone = Field(30.0, description="A draining group may finish its task for so long.")
    lease: LeaseSettings = LeaseSettings()
    options: dict[str, Any] = Field(default_factory=dict, description="For the workload: dtype, attention, …")

    @property
    def workload_options(self) -> dict[str, Any]:
        """What the workload, its limits and its checks get: the options, and the model where one is named."""
        return self.options | ({"model": self.model} if self.model else {})

    @model_validator(mode="after")
    def _fit_together(self) -> Self:
        return _fits(self, fitting.of_pool(self))


class TenantSettings(_Group):
    """What a tenant may have."""

    weight: Share = Field(1.0, description="Its share of the groups beside other tenants.")


class OperatorSettings(_Group):
    """`daybreakd operator`, which keeps the groups of each pool on Kubernetes."""

    namespace: str | None = Field(
        None, description="Whose GeneratorPools it keeps; absent: the pod's own, or the kubeconfig's."
    )
    host: ListeningHost = Field("0.0.0.0", description="Address for probes and metrics.")
    liveness_port: Port = Field(8080, description="`/healthz` fails when a pool's loop hangs; 0: not served.")
    metrics_port: Port = Field(9090, description="`/metrics` for Prometheus; 0: not served.")


class RaySettings(_Group):
    """How Ray's nodes are started."""

    fast_start: bool = Field(
        True,
        description="Start Ray through private parts of it, where its version was tested so. Off, or with another "
        "version: by stock `ray start` and `ray.init`, some seconds slower.",
    )


class Settings(_Group):
    """Daybreak's settings."""

    data_dir: Folder = Field(
        Path(".daybreak"), description="Where `up` and `dev` keep data, logs and tokens."
    )
    model_cache: Folder = Field(
        Path(".daybreak/models"),
        description="Where a node keeps models from `s3://`; absent: `models` in the data folder.",
    )
    redis: RedisSettings = RedisSettings()
    artifacts: ArtifactSettings = ArtifactSettings()
    http: HttpSettings = HttpSettings()
    pools: dict[PoolName, PoolSettings] = Field(
        default_factory=lambda: {"video": PoolSettings()},
        min_length=1,
        description="By name; a pool that is named replaces the default one, `video`.",
    )
    tenants: dict[TenantName, TenantSettings] = Field(default_factory=dict, description="By name.")
    operator: OperatorSettings = OperatorSettings()
    ray: RaySettings = RaySettings()

    @model_validator(mode="after")
    def _fit_together(self) -> Self:
        return _fits(self, fitting.of_all(self))

    @model_validator(mode="before")
    @classmethod
    def _follow_each_other(cls, data: Any) -> Any:
        """Defaults that depend on others: files go below ``data_dir``, a pool serves its namesake."""
        if not isinstance(data, Mapping):
            return data
        tree = dict(data)
        artifacts = tree.get("artifacts", {})
        if isinstance(artifacts, ArtifactSettings):
            artifacts = artifacts.model_dump(exclude_unset=True)
        try:
            folder = absolute_folder(Path(str(tree.get("data_dir", ".daybreak"))))
        except ValueError:  # which its own field says
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
    """The settings of this process: defaults, then the YAML file ``config``, then the environment.

    Without ``config`` the file is the one that ``DAYBREAK_CONFIG`` names, if any. ``environ`` stands in for the
    process's own environment. An empty variable counts as absent.

    :raises SettingsError: with a line for each unknown name, wrong value, or unreadable file.
    """
    variables = os.environ if environ is None else environ
    return sources.load(Settings, config=config, environ=variables)


def child_environment(changes: Mapping[str, str | None]) -> dict[str, str]:
    """The environment for a process that this one starts: its own, with ``changes`` (``None`` removes)."""
    merged = {**os.environ, **changes}
    return {name: value for name, value in merged.items() if value is not None}


def names_kubernetes() -> bool:
    """Whether the environment names a Kubernetes: that of a pod, or a person's KUBECONFIG."""
    return any(os.environ.get(name) for name in ("KUBERNETES_SERVICE_HOST", "KUBECONFIG"))
