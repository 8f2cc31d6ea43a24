"""Chooses the serving pool for a request whose path names no pool.

If the request has the field ``model``, this field names the pool. Otherwise, the setting ``http.default_pools`` names
the pool. If that setting names no pool, and a single pool has the workload that the path needs, this pool is chosen.

The value of ``model`` is the name of a pool, or the name of a pool's model as clients see it. Both names are known
from the settings, so a request can also wake a pool that has no groups.
"""

from __future__ import annotations

from daybreak.wire import ErrorCode
from daybreak_server.api.errors import MAX_FIELD_CHARS, ApiError
from daybreak_server.api.intake.catalog import Catalog
from daybreak_server.domain.kinds import PoolKind
from daybreak_server.settings.tree import DefaultPools

EMBED = "embed"
RERANK = "rerank"


class ChosenPools:
    """The pools by the names that clients may send as ``model``. A pool's name takes precedence over a model's."""

    def __init__(self, catalog: Catalog, defaults: DefaultPools) -> None:
        online = [entry for entry in catalog if entry.spec.kind == PoolKind.ONLINE]
        self._pools: dict[str, str] = {}
        for entry in online:
            if entry.model_name is not None:
                self._pools.setdefault(entry.model_name, entry.name)
        self._pools |= {entry.name: entry.name for entry in online}
        self._defaults = {EMBED: defaults.embed, RERANK: defaults.rerank}
        self._of_workload = {
            role: [entry.name for entry in online if entry.spec.name == role] for role in (EMBED, RERANK)
        }

    def of(self, role: str, model: str | None) -> str:
        """The name of the pool. ``role``: the workload that the path needs, ``embed`` or ``rerank``.

        :raises ApiError: ``model_not_found`` or ``no_such_pool``.
        """
        if model is not None:
            pool = self._pools.get(model)
            if pool is None:
                known = ", ".join(sorted(self._pools)) or "none"
                raise ApiError(
                    ErrorCode.MODEL_NOT_FOUND,
                    f"There is no model {model[:MAX_FIELD_CHARS]!r}. The models are: {known}.",
                )
            return pool
        default, pools = self._defaults[role], self._of_workload[role]
        if default is not None:
            return default
        if len(pools) == 1:
            return pools[0]
        if not pools:
            message = f"No pool has the workload {role!r}. An administrator must add one."
        else:
            message = f"Several pools have the workload {role!r}: {', '.join(pools)}. Name one as `model`."
        raise ApiError(ErrorCode.NO_SUCH_POOL, message)
