"""A small table that every process of a Ray cluster sees, and that ends with the cluster.

Ray's own key-value store holds it: that is there before anything else, and an access takes a millisecond. Ray calls
it internal, so where its functions are missing a named actor without a CPU holds the table instead, with one warning.
"""

from __future__ import annotations

import logging
from functools import cache
from typing import Any, Final, Protocol

import ray

_log = logging.getLogger(__name__)
NAMESPACE: Final = "daybreak"
ACTOR: Final = "daybreak-table"
_FUNCTIONS = ("_internal_kv_put", "_internal_kv_get", "_internal_kv_del", "_internal_kv_list")


class Table(Protocol):
    """Texts by their keys."""

    def put(self, key: str, value: str) -> None:
        """Write, over what is there."""

    def get(self, key: str) -> str | None:
        """Read; ``None`` where there is nothing."""

    def delete(self, key: str) -> None:
        """Remove, if it is there."""

    def keys(self, prefix: str) -> list[str]:
        """The keys that begin so."""


@cache
def table() -> Table:
    """The cluster's table. This process must be in a cluster."""
    try:
        from ray.experimental import internal_kv
    except ImportError:
        internal_kv = None
    missing = [name for name in _FUNCTIONS if not hasattr(internal_kv, name)]
    if not missing:
        return _RaysOwn(internal_kv)
    _log.warning(
        "Ray %s has no %s: an actor (%s) holds what groups tell each other. Everything works; use a Ray that was "
        "tested (`pip install 'daybreak-server[ray]'`) to have it in Ray's own store.",
        ray.__version__,
        ", ".join(missing),
        ACTOR,
    )
    return _OfActor()


class _RaysOwn:
    def __init__(self, internal_kv: Any) -> None:
        self._kv = internal_kv
        self._namespace = NAMESPACE.encode()

    def put(self, key: str, value: str) -> None:
        self._kv._internal_kv_put(key.encode(), value.encode(), True, namespace=self._namespace)

    def get(self, key: str) -> str | None:
        found = self._kv._internal_kv_get(key.encode(), namespace=self._namespace)
        return found.decode() if found else None

    def delete(self, key: str) -> None:
        self._kv._internal_kv_del(key.encode(), namespace=self._namespace)

    def keys(self, prefix: str) -> list[str]:
        found = self._kv._internal_kv_list(prefix.encode(), namespace=self._namespace)
        return [key.decode() for key in found]


class _Texts:
    """What the actor holds."""

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


class _OfActor:
    def _ask(self, method: str, *arguments: str) -> Any:
        # The first that comes makes it. It is looked up each time: another process may have outlived a dead one.
        actor = (
            ray.remote(_Texts)
            .options(
                name=ACTOR,
                namespace=NAMESPACE,
                lifetime="detached",
                get_if_exists=True,
                num_cpus=0,
                max_restarts=-1,
                max_task_retries=-1,
            )
            .remote()
        )
        return ray.get(getattr(actor, method).remote(*arguments))

    def put(self, key: str, value: str) -> None:
        self._ask("put", key, value)

    def get(self, key: str) -> str | None:
        found: str | None = self._ask("get", key)
        return found

    def delete(self, key: str) -> None:
        self._ask("delete", key)

    def keys(self, prefix: str) -> list[str]:
        found: list[str] = self._ask("keys", prefix)
        return found
