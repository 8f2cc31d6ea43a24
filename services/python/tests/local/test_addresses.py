"""Tests that the client accepts the URLs that Daybreak prints, whatever address Daybreak listens on."""

from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from daybreak import Client
from daybreak_server.cli.doctor.checks import examine
from daybreak_server.settings.address_format import host_port, reachable, url_of
from daybreak_server.settings.tree import Settings
from testkit.system import System


def has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as sock:
            sock.bind(("::1", 0))
    except OSError:
        return False
    return True


@pytest.mark.skipif(not has_ipv6(), reason="this machine has no ::1")
@pytest.mark.parametrize(
    ("host", "printed"), [("::1", "http://[::1]:"), ("[::1]", "http://[::1]:"), ("::", "http://[::1]:")]
)
def test_dev_on_ipv6_prints_a_url_that_the_client_accepts(
    systems: Callable[..., System], host: str, printed: str
) -> None:
    dev = systems("dev", DAYBREAK_HTTP__HOST=host)
    url = dev.ready(60)["url"]
    assert url.startswith(printed)
    assert f"try: daybreak --url {url} submit echo" in dev.output_text()
    with Client(url) as client:
        assert [pool.name for pool in client.pools()] == ["echo"]


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("127.0.0.1", "http://127.0.0.1:80"),
        ("0.0.0.0", "http://127.0.0.1:80"),
        ("::", "http://[::1]:80"),
        ("2001:db8::7", "http://[2001:db8::7]:80"),
        ("node-1", "http://node-1:80"),
    ],
)
def test_an_address_is_formatted_as_a_reachable_url(host: str, url: str) -> None:
    assert url_of(reachable(host), 80) == url
    assert url == f"http://{host_port(reachable(host), 80)}"


@pytest.mark.skipif(not has_ipv6(), reason="this machine has no ::1")
def test_doctor_formats_an_ipv6_address_as_a_url_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    settings = Settings.model_validate({"http": {"host": "::1", "port": 0}})
    with socket.socket(socket.AF_INET6) as taken:
        taken.bind(("::1", 0))
        taken.listen(1)
        port = taken.getsockname()[1]
        settings = settings.model_copy(
            update={"http": settings.http.model_copy(update={"port": port}), "pools": {}}
        )
        (check,) = [check for check in examine(settings) if check.what == "port"]
    assert f"[::1]:{port} is in use" in check.found
