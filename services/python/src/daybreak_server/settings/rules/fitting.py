"""Rules for settings that depend on each other, checked before anything starts."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

from daybreak_server.domain.policy import REQUEST_BODY_MAX_BYTES

if TYPE_CHECKING:
    from daybreak_server.settings.router import RouterSettings
    from daybreak_server.settings.tree import (
        PoolSettings,
        RedisSettings,
        S3Settings,
        Settings,
        TracingSettings,
    )


def of_redis(redis: RedisSettings) -> Iterator[str]:
    """Contradictions in how Redis is reached: about Sentinels, TLS, passwords and replicas."""
    url = redis.url or ""
    if redis.sentinels and not (redis.url and redis.sentinel_master):
        yield (
            "sentinels also needs the name of the master (sentinel_master) and a url such as "
            "redis://user:password@master/0"
        )
    if redis.sentinels and url.startswith("unix:"):
        yield "with sentinels, url cannot be a unix:// socket; write redis:// or rediss://"
    if redis.sentinel_master and not redis.sentinels:
        yield "sentinel_master needs the addresses of the Sentinels; set sentinels"
    files = {"ca_file": redis.ca_file, "cert_file": redis.cert_file, "key_file": redis.key_file}
    if any(files.values()) and not url.startswith("rediss:"):
        yield "ca_file, cert_file and key_file need TLS; write rediss://… in url"
    if bool(redis.cert_file) != bool(redis.key_file):
        yield "cert_file and key_file need each other; set both"
    options = parse_qs(urlsplit(url).query)
    for option, name in (
        ("ssl_ca_certs", "ca_file"),
        ("ssl_certfile", "cert_file"),
        ("ssl_keyfile", "key_file"),
    ):
        if option in options and files[name]:
            yield f"the url's option {option} is the same as {name}; remove it from the url"
    if redis.password_file and (redis.url is None or urlsplit(redis.url).password is not None):
        yield "password_file needs a url without a password; write redis://user@host:6379/0"
    if redis.sentinel_password and redis.sentinel_password_file:
        yield "sentinel_password and sentinel_password_file are both set; remove one of them"
    if (redis.sentinel_password or redis.sentinel_password_file) and not redis.sentinels:
        yield "sentinel_password needs Sentinels; set sentinels, or remove the password"
    if redis.wait_replicas and redis.url is None:
        yield "wait_replicas needs replicas, and the embedded Redis has none; set url, or remove wait_replicas"


def of_s3(s3: S3Settings) -> Iterator[str]:
    """Contradictions in how S3 is reached: only one of the two key files, or a URL that is never used."""
    if bool(s3.access_key_id_file) != bool(s3.secret_access_key_file):
        yield "access_key_id_file and secret_access_key_file need each other; set both"
    if s3.public_endpoint_url and not s3.presign:
        yield "public_endpoint_url is only for presigned URLs, and presign is off; turn presign on, or remove this URL"


def of_tracing(tracing: TracingSettings) -> Iterator[str]:
    """Tracing that is on without the packages that it needs, or an endpoint with a path that Daybreak adds itself."""
    if tracing.endpoint.rstrip("/").endswith("/v1/traces"):
        yield "endpoint ends in /v1/traces, which Daybreak adds; remove it"
    if tracing.enabled and not _is_installed("opentelemetry.exporter.otlp.proto.http"):
        yield (
            "enabled needs OpenTelemetry, which is not installed here; install daybreak-server[tracing], "
            "or set enabled to false"
        )


def _is_installed(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:  # a package that contains the module is missing
        return False


def of_router(router: RouterSettings) -> Iterator[str]:
    """Contradictions between limits on the size of request bodies."""
    if router.max_body_bytes > REQUEST_BODY_MAX_BYTES:
        yield f"max_body_bytes is larger than {REQUEST_BODY_MAX_BYTES}, the most that a group reads; lower it"
    kept = min(router.buffer_bytes, router.max_body_bytes)
    if kept > router.max_buffered_bytes:
        yield (
            f"max_buffered_bytes is too small for one body of {kept} bytes; raise it, or lower buffer_bytes below it"
        )


def of_pool(pool: PoolSettings) -> Iterator[str]:
    """GPU counts that Ray would refuse when the first group starts, and options that cannot be passed as JSON."""
    if pool.gpus_per_rank > 1 and not pool.gpus_per_rank.is_integer():
        yield "a gpus_per_rank above 1 must be a whole number: Ray can share a GPU only if a rank uses less than one"
    for path in _not_json(pool.options, "options"):
        yield f"{path} cannot be written as JSON; use text, finite numbers, true, false, lists and mappings"


def of_all(settings: Settings) -> Iterator[str]:
    """Contradictions between sections."""
    operator, s3 = settings.operator, settings.artifacts.s3
    if operator.liveness_port and operator.liveness_port == operator.metrics_port:
        yield "operator.liveness_port and operator.metrics_port are the same port; change one, or set it to 0"
    urls = [settings.artifacts.url, *(pool.model or "" for pool in settings.pools.values())]
    urls += [
        url for pool in settings.pools.values() if pool.bulk is not None for url in pool.bulk.places.values()
    ]
    if not any(url.startswith("s3:") for url in urls):
        unused = [
            name
            for name in ("endpoint_url", "public_endpoint_url", "access_key_id_file")
            if getattr(s3, name)
        ]
        if unused:
            yield (
                f"artifacts.s3.{unused[0]} is set, but artifacts.url is a folder, and no pool has a model or "
                f"files on S3; set artifacts.url to s3://bucket/prefix, or remove artifacts.s3.{unused[0]}"
            )


def _not_json(value: Any, path: str) -> Iterator[str]:
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from _not_json(item, f"{path}.{key}") if isinstance(key, str) else [f"a key of {path}"]
    elif isinstance(value, list | tuple):
        for number, item in enumerate(value):
            yield from _not_json(item, f"{path}[{number}]")
    elif isinstance(value, float):
        if not math.isfinite(value):
            yield path
    elif not (value is None or isinstance(value, str | int)):
        yield path
