"""Commands are put on the wire by hiredis, where it is installed: an ``XACK`` of a thousand ids is then no work."""

from __future__ import annotations

from typing import Any

try:
    import hiredis
except ImportError:  # redis-py does it in Python
    hiredis = None  # type: ignore[assignment]


def in_c(pool: Any) -> None:
    """Let the connections that this pool will make pack their commands in C."""
    if hiredis is not None:
        pool.connection_class = type("PackedInC", (pool.connection_class,), {"pack_command": _pack})


def _pack(_connection: object, *command: Any) -> list[bytes]:
    name, *arguments = command
    words = name.split() if isinstance(name, str) else [name]  # "XINFO STREAM" is two
    return [hiredis.pack_command((*words, *arguments))]
