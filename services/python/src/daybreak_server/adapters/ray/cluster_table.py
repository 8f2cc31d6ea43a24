"""A small table of texts that every process of a Ray cluster can read and write, and that ends with the cluster.

Ray's own key-value store holds the table. The store exists as soon as the cluster does, and an access takes a
millisecond. The store's functions are internal to Ray. If the installed Ray lacks one of them, a named actor that
reserves no CPU holds the table instead, and one warning says so.
"""

from __future__ import annotations

import logging
from functools import cache
from typing import Any, Final, Protocol

import ray

from daybreak_server.adapters.ray.head_actor import head_actor

_log = logging.getLogger(__name__)
NAMESPACE: Final = "daybreak"
ACTOR: Final = "daybreak-table"
_FUNCTIONS = ("_internal_kv_put", "_internal_kv_get", "_internal_kv_del", "_internal_kv_list")


class Table(Protocol):
    """Texts by key."""

    def put(self, key: str, value: str) -> None:
        """Write a value. It replaces an earlier one."""

    def get(self, key: str) -> str | None:
        """Return the value, or ``None``."""

    def delete(self, key: str) -> None:
        """Remove the value, if there is one."""

    def keys(self, prefix: str) -> list[str]:
        """Return the keys with this prefix."""


@cache
def table() -> Table:
    """Return the cluster's table. This process must be connected to a cluster."""
    try:
        from ray.experimental import internal_kv
    except ImportError:
        internal_kv = None
    missing = [name for name in _FUNCTIONS if not hasattr(internal_kv, name)]
    if not missing:
        return _InternalKvTable(internal_kv)
    _log.warning(
        "Ray %s has no %s: an actor (%s) holds the table that ranks share. Everything works; to use Ray's own store, "
        "install a tested Ray (`pip install 'daybreak-server[ray]'`).",
        ray.__version__,
        ", ".join(missing),
        ACTOR,
    )
    return _ActorTable()


class _InternalKvTable:
    """A table in Ray's key-value store."""

    def __init__(self, internal_kv: Any) -> None:
        self._kv = internal_kv
        self._namespace = NAMESPACE.encode()

    def put(self, key: str, value: str) -> None:
        self._kv._internal_kv_put(key.encode(), value.encode(), True, namespace=self._namespace)

    def get(self, key: str) -> str | None:
        value = self._kv._internal_kv_get(key.encode(), namespace=self._namespace)
        return value.decode() if value else None

    def delete(self, key: str) -> None:
        self._kv._internal_kv_del(key.encode(), namespace=self._namespace)

    def keys(self, prefix: str) -> list[str]:
        keys = self._kv._internal_kv_list(prefix.encode(), namespace=self._namespace)
        return [key.decode() for key in keys]


class _TableActor:
    """The class of the actor that holds a table."""

    def __init__(self) -> None:
        self._texts: dict[str, str] = {}

    def put(self, key: str, value: str) -> None:
        self._texts[key] = value

    def get(self, key: str) -> str | None:
        return self._texts.get(key)

    def delete(self, key: str) -> None:
        self._texts.pop(key, None)

    def keys(self, prefix: str) -> list[str]:
        return [key for key in self._texts if key.startswith(prefix)]


class _ActorTable:
    """A table in a named actor."""

    def _call(self, method: str, *arguments: str) -> Any:
        # The first caller creates the actor. Each call looks the actor up, because it may have died since.
        actor = head_actor(_TableActor, name=ACTOR, namespace=NAMESPACE)
        return ray.get(getattr(actor, method).remote(*arguments))

    def put(self, key: str, value: str) -> None:
        self._call("put", key, value)

    def get(self, key: str) -> str | None:
        value: str | None = self._call("get", key)
        return value

    def delete(self, key: str) -> None:
        self._call("delete", key)

    def keys(self, prefix: str) -> list[str]:
        keys: list[str] = self._call("keys", prefix)
        return keys
