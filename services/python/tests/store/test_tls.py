"""Redis with TLS and an ACL user: every adapter connects, and refuses a server that it must not trust."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from daybreak_server.adapters.redis.endpoint import Endpoint
from daybreak_server.adapters.redis.server_facts import facts
from daybreak_server.domain.tasks import State
from daybreak_server.settings.tree import RedisSettings
from testkit.redis_tls import PASSWORD, USER, Authority, TlsServer
from testkit.task_lifecycle import run_task_lifecycle
from testkit.valkey import binary


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def start_tls_server(
    tmp_path_factory: pytest.TempPathFactory, authority: Authority
) -> Iterator[Callable[..., TlsServer]]:
    """A function that starts a Redis server with TLS. The embedded Valkey has no TLS.

    At most two servers run: one that requires client certificates (``mutual``), and one that does not.
    """
    program = binary("redis")
    if program is None:
        pytest.skip(
            "no redis-server on PATH (Debian: apt-get install redis-server); the embedded Valkey has no TLS"
        )
    started: dict[bool, TlsServer] = {}

    def start_once(*, mutual: bool = False) -> TlsServer:
        if mutual not in started:
            folder = tmp_path_factory.mktemp("secure")
            started[mutual] = TlsServer(folder, program, authority, mutual=mutual)
            started[mutual].start()
        return started[mutual]

    yield start_once
    for server in started.values():
        server.stop()


@pytest.fixture(autouse=True)
async def close_connections() -> AsyncIterator[None]:
    """Wait until each TLS connection is closed, so that the loop does not end first.

    redis-py does not wait for the close of a connection that failed, and closing TLS takes a round trip. A
    loop that ends first leaves an open socket, which the garbage collector then finds in some other test.
    """
    yield
    transports = asyncio.get_running_loop()._transports  # type: ignore[attr-defined]  # there is no public list
    async with asyncio.timeout(60):  # asyncio waits up to 30 s for the peer
        while any(transport._sock is not None for transport in list(transports.values())):
            await asyncio.sleep(0.005)


def endpoint_of(server: TlsServer, *, password: str = PASSWORD, **files: Path) -> Endpoint:
    url = f"rediss://{USER}:{quote(password, safe='')}@127.0.0.1:{server.port}/0"
    named: dict[str, Any] = {name: str(file) for name, file in files.items()}
    return Endpoint.configured(RedisSettings(url=url, **named))


async def test_every_adapter_connects_over_tls(
    start_tls_server: Callable[..., TlsServer], authority: Authority
) -> None:
    """The adapters of the store, the queue, the events and the server's facts use a CA file and an ACL user."""
    endpoint = endpoint_of(start_tls_server(), ca_file=authority.ca_file)
    assert await run_task_lifecycle(endpoint) is State.SUCCEEDED
    reported = await facts(endpoint)
    assert (reported.error, reported.product) == (None, "redis")


async def test_tls_options_in_the_url_are_used(
    start_tls_server: Callable[..., TlsServer], authority: Authority
) -> None:
    """A URL can name a CA file, and can turn off the check of certificates."""
    url = endpoint_of(start_tls_server()).url
    for options in (f"ssl_ca_certs={authority.ca_file}", "ssl_cert_reqs=none&ssl_check_hostname=false"):
        endpoint = Endpoint.configured(RedisSettings(url=f"{url}?{options}"))
        assert await run_task_lifecycle(endpoint) is State.SUCCEEDED
    assert "certificate" in ((await facts(endpoint_of(start_tls_server()))).error or "").lower()


async def test_a_server_may_require_a_client_certificate(
    start_tls_server: Callable[..., TlsServer], authority: Authority
) -> None:
    """The server refuses a client without a certificate.

    The server accepts a client with a certificate from the server's own authority.
    """
    server = start_tls_server(mutual=True)
    client_files = {"cert_file": server.certificate, "key_file": server.key}
    assert (
        await run_task_lifecycle(endpoint_of(server, ca_file=authority.ca_file, **client_files))
        is State.SUCCEEDED
    )
    assert "cannot be reached" in ((await facts(endpoint_of(server, ca_file=authority.ca_file))).error or "")


async def test_a_server_with_a_certificate_of_another_authority_is_refused(
    start_tls_server: Callable[..., TlsServer], tmp_path: Path
) -> None:
    """The client never sends its password to such a server, and the error names the certificate."""
    other_authority = Authority(tmp_path / "strange")
    reported = await facts(endpoint_of(start_tls_server(), ca_file=other_authority.ca_file))
    assert "certificate" in (reported.error or "").lower()


async def test_the_error_of_a_wrong_password_names_the_password(
    start_tls_server: Callable[..., TlsServer], authority: Authority
) -> None:
    """The error blames the password, not the network."""
    reported = await facts(endpoint_of(start_tls_server(), password="wrong", ca_file=authority.ca_file))
    assert (reported.error or "").startswith("Redis refuses the user or the password")
