"""All settings: one typed tree, from a YAML file or the environment. The one file that reads the environment."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints
from pydantic_settings import BaseSettings, SettingsConfigDict

PoolName = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9-]{0,30}$")]


class _Group(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class RedisSettings(_Group):
    """The store of tasks: Redis ≥ 7.0 or Valkey, with AOF on and `noeviction`."""

    url: str | None = Field(None, description="`redis://…`; absent: an embedded Valkey (only `up` and `dev`).")
    prefix: str = Field("daybreak", description="First part of every key.")
    timeout_s: float = Field(5.0, gt=0, description="Seconds that one command may take.")


class S3Settings(_Group):
    """How to reach an S3 server; credentials come from the usual AWS variables."""

    endpoint_url: str | None = Field(None, description="Absent: AWS.")
    region: str | None = Field(None, description="Absent: from the AWS variables.")
    path_style: bool = Field(False, description="`https://host/bucket/key` instead of `https://bucket.host/key`.")


class ArtifactSettings(_Group):
    """The store of files."""

    url: str = Field("file:.daybreak/artifacts", description="`file:///folder` or `s3://bucket/prefix`.")
    s3: S3Settings = S3Settings()
    url_expires_s: float = Field(900, gt=0, description="How long a presigned URL lives.")


class HttpSettings(_Group):
    """The HTTP server."""

    host: str = "127.0.0.1"
    port: int = Field(8000, ge=0, le=65535)
    max_body_bytes: int = Field(1 << 20, gt=0)
    max_streams: int = Field(10_000, gt=0, description="Open SSE and WebSocket streams in one process.")
    max_streams_per_tenant: int = Field(10_000, gt=0)
    heartbeat_s: float = Field(15.0, gt=0, description="Seconds between SSE comments.")


class LeaseSettings(_Group):
    """How long silence is allowed."""

    lease_s: float = Field(15.0, gt=0, description="A leader that is silent for so long loses its task.")
    stall_s: float = Field(120.0, gt=0, description="A step that takes longer is a stall.")
    load_stall_s: float = Field(1800.0, gt=0, description="The same while the model loads.")


class PoolSettings(_Group):
    """One pool: a queue and the groups that serve it."""

    workload: str = Field("video", description="An installed workload, or `package.module:SPEC`.")
    model: str | None = Field(None, description="Folder of the model; absent: the workload's own.")
    ranks: int = Field(1, ge=1, description="Ranks of one group.")
    groups: int = Field(1, ge=0, description="Groups that `up` runs.")
    device: Literal["auto", "cpu", "cuda"] = "auto"
    cpus_per_rank: float = Field(1.0, ge=0)
    gpus_per_rank: float = Field(1.0, ge=0, description="Only where the device is a GPU.")
    retention_s: float = Field(7 * 86400, gt=0, description="Ended tasks are kept so long, with events and files.")
    max_queued: int = Field(1_000_000, gt=0, description="More waiting tasks are refused with `queue_full`.")
    checkpoint_s: float = Field(60.0, gt=0, description="At most one checkpoint in so many seconds.")
    progress_s: float = Field(0.25, ge=0, description="At most one progress event in so many seconds.")
    drain_s: float = Field(30.0, ge=0, description="A draining group may finish its task for so long.")
    lease: LeaseSettings = LeaseSettings()
    options: dict[str, Any] = Field(default_factory=dict, description="For the workload: dtype, attention, …")


class TenantSettings(_Group):
    """What a tenant may have."""

    weight: float = Field(1.0, gt=0, description="Its share of the groups beside other tenants.")


class Settings(BaseSettings):
    """Daybreak's settings."""

    model_config = SettingsConfigDict(
        env_prefix="DAYBREAK_", env_nested_delimiter="__", extra="forbid", frozen=True, nested_model_default_partial_update=True
    )

    data_dir: Path = Field(Path(".daybreak"), description="Where `up` and `dev` keep data, logs and tokens.")
    redis: RedisSettings = RedisSettings()
    artifacts: ArtifactSettings = ArtifactSettings()
    http: HttpSettings = HttpSettings()
    pools: dict[PoolName, PoolSettings] = Field(default_factory=lambda: {"video": PoolSettings()})
    tenants: dict[str, TenantSettings] = Field(default_factory=dict)
