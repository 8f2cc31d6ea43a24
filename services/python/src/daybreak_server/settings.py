"""All settings: one typed tree, from a YAML file and the environment; only this file reads the environment.

:class:`Settings` itself is pure: tests and other code build it with the values that they want. Processes that
a person starts call :func:`load_settings`, and hand the tree on to what they start.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self
from urllib.parse import unquote, urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    model_validator,
)

from daybreak_server import settings_sources as sources
from daybreak_server.domain.kinds import PoolKind
from daybreak_server.settings_sources import SettingsError

__all__ = [
    "ArtifactSettings",
    "HttpSettings",
    "LeaseSettings",
    "OperatorSettings",
    "PoolName",
    "PoolSettings",
    "RedisSettings",
    "S3Settings",
    "Settings",
    "SettingsError",
    "TenantSettings",
    "child_environment",
    "load_settings",
    "names_kubernetes",
]


SENTINEL_PORT: Final = "26379"


def _absolute_folder(folder: Path) -> Path:
    return Path(os.path.abspath(folder.expanduser()))


def _model(place: str | None) -> str | None:
    """``s3://bucket/prefix`` as it is; a folder, or ``file:`` and a folder, as an absolute path."""
    if place is None:
        return None
    parts = urlsplit(place)
    if parts.scheme == "s3":
        return _absolute_url(place)
    if parts.scheme == "file":
        return unquote(urlsplit(_absolute_url(place)).path)
    return str(_absolute_folder(Path(place)))


def _absolute_url(url: str) -> str:
    """One Daybreak has processes in several working directories: a relative folder is resolved at once."""
    parts = urlsplit(url)
    match parts.scheme:
        case "file" if parts.netloc in {"", "localhost"} and parts.path.strip("/"):
            return _absolute_folder(Path(unquote(parts.path))).as_uri()
        case "s3" if parts.netloc and not parts.query and not parts.fragment:
            return url.rstrip("/")
    raise ValueError("write file:///absolute/folder, file:relative/folder or s3://bucket/prefix")


def _redis_url(url: str | None) -> str | None:
    if url is not None and urlsplit(url).scheme not in {"redis", "rediss", "unix"}:
        raise ValueError("write redis://host:6379/0, rediss://… (TLS) or unix:///path")
    return url


def _addresses(given: Any) -> Any:
    """``host:port`` of each; text may name several, with commas between them or as a JSON array."""
    listed = given
    if isinstance(given, str):
        with suppress(ValueError):
            listed = json.loads(given)
        listed = listed if isinstance(listed, list) else given.split(",")
    if not isinstance(listed, list | tuple) or not all(isinstance(one, str) for one in listed):
        raise ValueError("write host:port, and commas between several")
    return tuple(_address(one.strip()) for one in listed if one.strip())


def _address(text: str) -> str:
    host, colon, port = text.rpartition(":")
    if not colon or text.endswith("]"):
        host, port = text, SENTINEL_PORT
    if not host or not port.isdigit() or "/" in text:
        raise ValueError(f"write host:port, not {text!r}")
    return f"{host}:{port}"


def _pool_name(name: str) -> str:
    if name == "api":
        raise ValueError("a pool's name is not `api`: so is the Serve application that answers HTTP")
    return name


PoolName = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9-]{0,30}$"), AfterValidator(_pool_name)]
TenantName = str


class _Group(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)


class RedisSettings(_Group):
    """The store of tasks: Redis ≥ 7.0 or Valkey, with AOF on and `noeviction`."""

    url: Annotated[str | None, AfterValidator(_redis_url)] = Field(
        None, description="`redis://…`; absent: an embedded Valkey (only `up` and `dev`)."
    )
    password_file: str | None = Field(
        None,
        description="A file with the password, where the URL has none. It is read anew for each connection: who "
        "replaces it (Kubernetes does, when a Secret changes) needs to restart nobody.",
    )
    prefix: str = Field("daybreak", description="First part of every key.")
    timeout_s: float = Field(5.0, gt=0, description="Seconds that one command may take.")
    ca_file: str | None = Field(
        None, description="For `rediss://`: certificates of who signed the server's; absent: the system's."
    )
    cert_file: str | None = Field(
        None, description="For `rediss://`: our own certificate, where the server asks for one."
    )
    key_file: str | None = Field(None, description="The key of `cert_file`.")
    sentinels: Annotated[tuple[str, ...], BeforeValidator(_addresses)] = Field(
        (),
        description="Sentinels, as `host:port,host:port`: they say where the master is. The URL then gives the "
        "scheme, user, password and database; its host counts for nothing. `rediss://` is for them too.",
    )
    sentinel_master: str | None = Field(None, description="What the Sentinels call the master.")
    sentinel_password: str | None = Field(
        None, description="The Sentinels' own password, where they have one."
    )
    sentinel_password_file: str | None = Field(None, description="A file with it, read in the same way.")
    wait_replicas: int = Field(
        0,
        ge=0,
        description="A task is accepted when so many replicas have it, else 503: what a fail-over may lose else.",
    )

    @model_validator(mode="after")
    def _fit_together(self) -> Self:
        if self.sentinels and not (self.url and self.sentinel_master):
            raise ValueError(
                "with sentinels give the name of the master (sentinel_master) and a url such as "
                "redis://user:password@master/0"
            )
        if self.sentinels and self.url and self.url.startswith("unix:"):
            raise ValueError("Sentinels name hosts: write redis:// or rediss://")
        if self.sentinel_master and not self.sentinels:
            raise ValueError("sentinel_master needs the addresses of the sentinels")
        files = self.ca_file or self.cert_file or self.key_file
        if files and not (self.url or "").startswith("rediss:"):
            raise ValueError("ca_file, cert_file and key_file are for TLS: write rediss://…")
        if bool(self.cert_file) != bool(self.key_file):
            raise ValueError("cert_file and key_file need each other")
        if self.password_file and (self.url is None or urlsplit(self.url).password is not None):
            raise ValueError("password_file is for a url without a password: redis://user@host:6379/0")
        if self.sentinel_password_file and self.sentinel_password:
            raise ValueError("give sentinel_password or sentinel_password_file, not both")
        return self


class S3Settings(_Group):
    """How to reach an S3 server; credentials come from two files, or from the usual AWS variables, files or roles."""

    endpoint_url: str | None = Field(None, description="Absent: AWS.")
    region: str | None = Field(None, description="Absent: from the AWS variables.")
    path_style: bool = Field(
        False, description="`https://host/bucket/key` instead of `https://bucket.host/key`."
    )
    public_endpoint_url: str | None = Field(
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
        if bool(self.access_key_id_file) != bool(self.secret_access_key_file):
            raise ValueError("access_key_id_file and secret_access_key_file need each other")
        return self

    @property
    def key_files(self) -> tuple[Path, Path] | None:
        """Access key and secret, where they are in files."""
        if self.access_key_id_file is None or self.secret_access_key_file is None:
            return None
        return self.access_key_id_file, self.secret_access_key_file


class ArtifactSettings(_Group):
    """The store of files."""

    url: Annotated[str, AfterValidator(_absolute_url)] = Field(
        "file:.daybreak/artifacts",
        description="`file:///folder` or `s3://bucket/prefix`; absent: `artifacts` in the data folder.",
    )
    s3: S3Settings = S3Settings()
    url_expires_s: float = Field(900, gt=0, description="How long a presigned URL lives.")


class HttpSettings(_Group):
    """The HTTP server."""

    host: str = Field("127.0.0.1", description="Address to listen on; `0.0.0.0` is every network.")
    port: int = Field(8000, ge=0, le=65535, description="Port to listen on; 0 takes a free one.")
    max_body_bytes: int = Field(
        1 << 20, gt=0, description="A longer request body is refused with `too_large`."
    )
    max_streams: int = Field(10_000, gt=0, description="Open SSE and WebSocket streams in one process.")
    max_streams_per_tenant: int = Field(10_000, gt=0, description="The same, for each tenant.")
    heartbeat_s: float = Field(15.0, gt=0, description="Seconds between SSE comments.")


class LeaseSettings(_Group):
    """How long silence is allowed."""

    lease_s: float = Field(
        15.0,
        gt=0,
        description="A leader that is silent for so long loses its task; an outage of Redis does not count.",
    )
    stall_s: float = Field(120.0, gt=0, description="A step that takes longer is a stall.")
    load_stall_s: float = Field(1800.0, gt=0, description="The same while the model loads.")


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
    model: Annotated[str | None, AfterValidator(_model)] = Field(
        None,
        description="Folder of the model, or `s3://bucket/prefix`, from where each node fetches it once into "
        "`model_cache`, by `artifacts.s3`; absent: the workload's own.",
    )
    ranks: int = Field(1, ge=1, description="Ranks of one group.")
    groups: int = Field(1, ge=0, description="Groups that `up` runs.")
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="`auto`: CUDA where there is one.")
    cpus_per_rank: float = Field(1.0, ge=0, description="CPUs that Ray reserves for a rank.")
    gpus_per_rank: float = Field(1.0, ge=0, description="Only where the device is a GPU.")
    retention_s: float = Field(
        7 * 86400, gt=0, description="Ended tasks are kept so long, with events and files."
    )
    max_queued: int = Field(1_000_000, gt=0, description="More waiting tasks are refused with `queue_full`.")
    checkpoint_s: float = Field(60.0, gt=0, description="At most one checkpoint in so many seconds.")
    progress_s: float = Field(0.25, ge=0, description="At most one progress event in so many seconds.")
    drain_s: float = Field(30.0, ge=0, description="A draining group may finish its task for so long.")
    lease: LeaseSettings = LeaseSettings()
    options: dict[str, Any] = Field(default_factory=dict, description="For the workload: dtype, attention, …")


class TenantSettings(_Group):
    """What a tenant may have."""

    weight: float = Field(1.0, gt=0, description="Its share of the groups beside other tenants.")


class OperatorSettings(_Group):
    """`daybreakd operator`, which keeps the groups of each pool on Kubernetes."""

    namespace: str | None = Field(
        None, description="Whose GeneratorPools it keeps; absent: the pod's own, or the kubeconfig's."
    )
    host: str = Field("0.0.0.0", description="Address for probes and metrics.")  # noqa: S104 - of a pod
    liveness_port: int = Field(
        8080, ge=0, le=65535, description="`/healthz` fails when a pool's loop hangs; 0: not served."
    )
    metrics_port: int = Field(9090, ge=0, le=65535, description="`/metrics` for Prometheus; 0: not served.")


class Settings(_Group):
    """Daybreak's settings."""

    data_dir: Annotated[Path, AfterValidator(_absolute_folder)] = Field(
        Path(".daybreak"), description="Where `up` and `dev` keep data, logs and tokens."
    )
    model_cache: Annotated[Path, AfterValidator(_absolute_folder)] = Field(
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
        if isinstance(artifacts, Mapping) and "url" not in artifacts:
            folder = _absolute_folder(Path(str(tree.get("data_dir", ".daybreak")))) / "artifacts"
            tree["artifacts"] = {**artifacts, "url": folder.as_uri()}
        if "model_cache" not in tree:
            tree["model_cache"] = str(
                _absolute_folder(Path(str(tree.get("data_dir", ".daybreak")))) / "models"
            )
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
    variables = os.environ if environ is None else environ  # noqa: TID251 - the one place
    return sources.load(Settings, config=config, environ=variables)


def child_environment(changes: Mapping[str, str | None]) -> dict[str, str]:
    """The environment for a process that this one starts: its own, with ``changes`` (``None`` removes)."""
    merged = {**os.environ, **changes}  # noqa: TID251 - the one place
    return {name: value for name, value in merged.items() if value is not None}


def names_kubernetes() -> bool:
    """Whether the environment names a Kubernetes: that of a pod, or a person's KUBECONFIG."""
    return any(os.environ.get(name) for name in ("KUBERNETES_SERVICE_HOST", "KUBECONFIG"))  # noqa: TID251 - the one place
