"""Redis behind TLS and an ACL user: every face connects, and who is not to be trusted is refused in a sentence."""

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
def secure(
    tmp_path_factory: pytest.TempPathFactory, authority: Authority
) -> Iterator[Callable[..., TlsServer]]:
    """Starts servers; the embedded Valkey has no TLS."""
    program = binary("redis")
    if program is None:
        pytest.skip(
            "no redis-server on PATH (Debian: apt-get install redis-server); the embedded Valkey has no TLS"
        )
    started: dict[bool, TlsServer] = {}

    def get(*, mutual: bool = False) -> TlsServer:
        if mutual not in started:
            folder = tmp_path_factory.mktemp("secure")
            started[mutual] = TlsServer(folder, program, authority, mutual=mutual)
            started[mutual].start()
        return started[mutual]

    yield get
    for server in started.values():
        server.stop()


@pytest.fixture(autouse=True)
async def shut_down() -> AsyncIterator[None]:
    """Let each TLS connection end before its loop does.

    redis-py does not wait for the close of a connection that failed, and a close of TLS takes a round
    trip: a loop that ends first leaves an open socket, which the garbage collector then finds in some
    other test.
    """
    yield
    transports = asyncio.get_running_loop()._transports  # type: ignore[attr-defined]  # it has no other list
    async with asyncio.timeout(60):  # asyncio itself gives a peer 30 s
        while any(transport._sock is not None for transport in list(transports.values())):
            await asyncio.sleep(0.005)


def endpoint(server: TlsServer, *, password: str = PASSWORD, **files: Path) -> Endpoint:
    url = f"rediss://{USER}:{quote(password, safe='')}@127.0.0.1:{server.port}/0"
    named: dict[str, Any] = {name: str(file) for name, file in files.items()}
    return Endpoint.configured(RedisSettings(url=url, **named))


async def test_every_face_speaks_tls(secure: Callable[..., TlsServer], authority: Authority) -> None:
    """Store, queue, events and the doctor's look connect by certificate and user."""
    where = endpoint(secure(), ca_file=authority.ca_file)
    assert await run_task_lifecycle(where) is State.SUCCEEDED
    found = await facts(where)
    assert (found.error, found.product) == (None, "redis")


async def test_the_urls_own_options_of_tls_count(
    secure: Callable[..., TlsServer], authority: Authority
) -> None:
    """A CA in the URL is used; and one who waives the check of certificates has what he asked for."""
    url = endpoint(secure()).url
    for options in (f"ssl_ca_certs={authority.ca_file}", "ssl_cert_reqs=none&ssl_check_hostname=false"):
        where = Endpoint.configured(RedisSettings(url=f"{url}?{options}"))
        assert await run_task_lifecycle(where) is State.SUCCEEDED
    assert "certificate" in ((await facts(endpoint(secure()))).error or "").lower()


async def test_a_server_that_wants_our_certificate(
    secure: Callable[..., TlsServer], authority: Authority
) -> None:
    """With one of its authority's it serves us; without, it does not."""
    server = secure(mutual=True)
    ours = {"cert_file": server.certificate, "key_file": server.key}
    assert await run_task_lifecycle(endpoint(server, ca_file=authority.ca_file, **ours)) is State.SUCCEEDED
    assert "cannot be reached" in ((await facts(endpoint(server, ca_file=authority.ca_file))).error or "")


async def test_a_server_that_another_authority_vouches_for_is_not_talked_to(
    secure: Callable[..., TlsServer], tmp_path: Path
) -> None:
    """The password never leaves for somebody else's server; the reason names the certificate."""
    strange = Authority(tmp_path / "strange")
    found = await facts(endpoint(secure(), ca_file=strange.ca_file))
    assert "certificate" in (found.error or "").lower()


async def test_a_wrong_password_is_said_to_be_one(
    secure: Callable[..., TlsServer], authority: Authority
) -> None:
    """What a person reads names the password, not the network."""
    found = await facts(endpoint(secure(), password="wrong", ca_file=authority.ca_file))
    assert (found.error or "").startswith("Redis refuses the user or the password")
