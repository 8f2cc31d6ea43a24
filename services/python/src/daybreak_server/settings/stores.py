"""Settings of the servers that store tasks and artifacts: Redis and S3."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Self

from pydantic import Field, model_validator

from daybreak_server.settings.rules import fitting, redis_url
from daybreak_server.settings.rules.addresses import (
    FilesUrl,
    KeyPrefix,
    RedisUrl,
    RegionName,
    SentinelAddresses,
    ServerUrl,
)
from daybreak_server.settings.rules.numbers import Duration, Replicas, Timeout
from daybreak_server.settings.section import ComputedDefault, Section, checked


class RedisSettings(Section):
    """The server that stores the tasks: Redis 7.0 or newer, or Valkey. It needs AOF and the policy `noeviction`."""

    url: RedisUrl = Field(
        None,
        description="Address of the server: `redis://host:6379/0`, `rediss://…` (TLS) or `unix:///path?db=0`. If "
        "unset, `up`, `dev` and `gateway --embedded` start an embedded Valkey; all other commands need an address. "
        "Allowed options after `?`: `" + "`, `".join(redis_url.OPTIONS) + "`.",
    )
    password_file: str | None = Field(
        None,
        description="File with the password, if the URL has none. Daybreak reads the file for each new connection, so "
        "a changed password needs no restart. (Kubernetes updates the file when its Secret changes.)",
    )
    prefix: KeyPrefix = Field("daybreak", description="First part of the name of every Redis key.")
    timeout_s: Timeout = Field(5.0, description="Timeout of one Redis command, in seconds.")
    ca_file: str | None = Field(
        None,
        description="For `rediss://`: file with the CA certificates that verify the server. If unset, the system's "
        "CA certificates.",
    )
    cert_file: str | None = Field(
        None, description="For `rediss://`: file with the client certificate, if the server requires one."
    )
    key_file: str | None = Field(
        None, description="File with the private key of the certificate in `cert_file`."
    )
    sentinels: SentinelAddresses = Field(
        (),
        description="Addresses of the Sentinels: `host:port,host:port`. If they are set, Daybreak asks them for the "
        "master. `redis.url` then gives only scheme, user, password and database, and its host is ignored. With "
        "`rediss://`, connections to the Sentinels use TLS too.",
    )
    sentinel_master: str | None = Field(
        None, description="Name of the master in the configuration of the Sentinels."
    )
    sentinel_password: str | None = Field(None, description="Password of the Sentinels, if they have one.")
    sentinel_password_file: str | None = Field(
        None,
        description="File with the password of the Sentinels. Daybreak reads it for each new connection.",
    )
    wait_replicas: Replicas = Field(
        0,
        description="Number of replicas that must confirm a new task. If too few confirm it, the submit gets 503, "
        "although the task is stored and may run. Submitting again with the same `Idempotency-Key` does not create a "
        "second task. With 0, a failover may lose the tasks that were accepted last.",
    )

    @model_validator(mode="after")
    def _fit_together(self) -> Self:
        return checked(self, fitting.of_redis(self))


class S3Settings(Section):
    """How to reach the S3 server. Credentials come from two files, or from the usual AWS variables, files or roles."""

    endpoint_url: ServerUrl = Field(None, description="URL of the S3 server. If unset, AWS.")
    region: RegionName = Field(
        None, description="Region of the bucket. If unset, the region in the AWS variables."
    )
    path_style: bool = Field(
        False,
        description="Use addresses like `https://host/bucket/key` instead of `https://bucket.host/key`.",
    )
    public_endpoint_url: ServerUrl = Field(
        None,
        description="URL of the S3 server in presigned URLs, if clients need a different one than Daybreak.",
    )
    access_key_id_file: Path | None = Field(
        None,
        description="File with the access key ID. Daybreak reads this file and `secret_access_key_file` for each "
        "request, so changed keys need no restart. (Kubernetes updates the files when their Secret changes.)",
    )
    secret_access_key_file: Path | None = Field(None, description="File with the secret access key.")
    presign: bool = Field(
        True,
        description="Whether downloads are redirected to presigned URLs. If not, Daybreak sends the files itself, and "
        "clients need no access to S3.",
    )

    @model_validator(mode="after")
    def _fit_together(self) -> Self:
        return checked(self, fitting.of_s3(self))

    @property
    def key_files(self) -> tuple[Path, Path] | None:
        """The files with the access key ID and the secret, if they are set."""
        if self.access_key_id_file is None or self.secret_access_key_file is None:
            return None
        return self.access_key_id_file, self.secret_access_key_file


class ArtifactSettings(Section):
    """Where the artifacts of tasks are stored."""

    url: Annotated[FilesUrl, ComputedDefault("file:<data_dir>/artifacts")] = Field(
        "file:.daybreak/artifacts",
        description="`file:///folder` or `s3://bucket/prefix`. If unset, the folder `artifacts` in `data_dir`.",
    )
    s3: S3Settings = S3Settings()
    url_expires_s: Duration = Field(900, description="Lifetime of a presigned URL, in seconds.")
