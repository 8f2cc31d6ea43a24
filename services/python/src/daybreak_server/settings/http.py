"""Settings of the HTTP server."""

from __future__ import annotations

from pydantic import Field

from daybreak_server.settings.rules.addresses import ListeningHost
from daybreak_server.settings.rules.http import Hosts, Networks, Origins, RootPath
from daybreak_server.settings.rules.numbers import Bytes, Count, Duration, Port
from daybreak_server.settings.section import Section


class DefaultPools(Section):
    """The pool that a request gets if neither its path nor its body names one."""

    embed: str | None = Field(
        None,
        description="Pool of `/v1/embeddings`, `/embedding/api` and `/debug`. If unset, the only pool of the workload "
        "`embed`.",
    )
    rerank: str | None = Field(
        None,
        description="Pool of `/v1/rerank`, `/v2/rerank`, `/rerank` and `/reranker/api`. If unset, the only pool of the "
        "workload `rerank`.",
    )
    sessions: str | None = Field(
        None,
        description="Pool of `/v1/sessions`, `/v1/realtime`, `/init` and other paths of sessions. If this is unset, or "
        "the pool does not support the languages of a request, the request goes to the only pool of the kind "
        "`sessions` that supports them.",
    )


class HttpSettings(Section):
    """The HTTP server."""

    host: ListeningHost = Field(
        "127.0.0.1", description="Address to listen on. `0.0.0.0` listens on all networks."
    )
    port: Port = Field(8000, description="Port to listen on. 0 selects any free port.")
    max_body_bytes: Bytes = Field(
        1 << 20,
        description="Maximum size of a request body. A larger body gets the error `too_large`. Recordings, and "
        "requests to groups and models, have the limit `router.max_body_bytes`.",
    )
    max_streams: Count = Field(
        10_000, description="Maximum number of open SSE and WebSocket streams in one process."
    )
    max_streams_per_tenant: Count = Field(
        10_000, description="Maximum number of open streams of one tenant in one process."
    )
    max_sessions_per_tenant: Count = Field(
        1_000, description="Maximum number of open streaming sessions of one tenant in a pool."
    )
    heartbeat_s: Duration = Field(
        15.0, description="Seconds between the heartbeats (SSE comments) on an idle stream."
    )
    drain_s: Duration = Field(
        30.0,
        description="When a server stops, it first waits for the answers that have begun, at most for this many "
        "seconds. Event streams end at once, because their clients continue elsewhere.",
    )
    allowed_hosts: Hosts = Field(
        (),
        description="Names that the `Host` header may have, in addition to IP addresses, `localhost` and the name of "
        "the machine: `daybreak.example.com,*.internal`, or `*` for any name. If the list is empty, requests from "
        "other machines may use any name, but requests from the server's own machine may not. If the list has entries, "
        "it applies to requests from all machines.",
    )
    allowed_origins: Origins = Field(
        (),
        description="Origins of other sites whose pages may call the API from a browser: `https://app.example.com`, or "
        "`*` for all sites.",
    )
    default_pools: DefaultPools = DefaultPools()
    root_path: RootPath = Field(
        "",
        description="Path below which a proxy serves the API, such as `/daybreak`. All links start with it.",
    )
    trusted_proxies: Networks = Field(
        (),
        description="Networks of trusted proxies, such as `10.0.0.0/8`. If such a proxy sends `X-Forwarded-Prefix`, "
        "this prefix replaces `root_path`.",
    )
