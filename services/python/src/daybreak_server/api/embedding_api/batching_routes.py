"""Routes that show and change a pool's setting ``batching``. Administrators can change it while groups run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastapi import APIRouter
from pydantic import ValidationError
from pydantic_core import to_json
from starlette.requests import Request
from starlette.responses import Response

from daybreak.wire import ErrorCode
from daybreak_server.api.auth.principal import Caller
from daybreak_server.api.dependencies import Dependencies
from daybreak_server.api.embedding_api import specs
from daybreak_server.api.embedding_api.debug_at_zero import batching_values
from daybreak_server.api.errors import ApiError, from_validation
from daybreak_server.api.http.request_body import read_json
from daybreak_server.api.http.responses import json_response
from daybreak_server.api.intake.catalog import PoolEntry
from daybreak_server.settings.batching import BatchingSettings

PATH = "/v1/pools/{name}/batching"


def router(ctx: Dependencies) -> APIRouter:
    """The routes, bound to their dependencies."""
    routes = APIRouter(tags=["pools"])

    def batching_pool(name: str) -> PoolEntry:
        entry = ctx.catalog.get(name)
        if not entry.spec.batches:
            raise ApiError(
                ErrorCode.CONFLICT,
                f"The pool {entry.name} has the workload {entry.spec.name}, which does not batch requests.",
            )
        return entry

    async def changed(name: str) -> Mapping[str, Any]:
        return (await ctx.services.store.pool(name)).batching

    @routes.get(PATH, **specs.BATCHING)
    async def show(name: str, caller: Caller) -> Response:
        """How the groups of a pool form batches."""
        entry = batching_pool(name)
        return json_response(_shown(entry, await changed(entry.name)))

    @routes.patch(PATH, **specs.SET_BATCHING)
    async def change(name: str, request: Request, caller: Caller) -> Response:
        """Change how the groups of a pool form batches, without a restart. `null` restores the configured value."""
        entry = batching_pool(name)
        if not caller.admin:
            raise ApiError(ErrorCode.FORBIDDEN, "Only administrators may change how a pool forms batches.")
        changes = await read_json(request, max_bytes=ctx.services.settings.http.max_body_bytes)
        values = _checked(entry, {**await changed(entry.name), **changes})
        stored = {name: None if value is None else values[name] for name, value in changes.items()}
        await ctx.services.batching.set_batching(entry.name, stored)
        return json_response(_shown(entry, await changed(entry.name)))

    return routes


def _checked(entry: PoolEntry, changes: Mapping[str, Any]) -> dict[str, Any]:
    """All values of the setting, with these changes applied. :raises ApiError: ``invalid_input``"""
    present = {name: _number(value) for name, value in changes.items() if value is not None}
    unknown = {name: value for name, value in changes.items() if name not in BatchingSettings.model_fields}
    try:
        body = to_json({**batching_values(entry, present), **unknown})
        return BatchingSettings.model_validate_json(body, strict=True).values()
    except ValidationError as exc:
        raise from_validation(exc) from exc


def _number(value: Any) -> Any:
    """``20.0`` counts as a whole number. A text never counts as a number, unlike in environment variables."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _shown(entry: PoolEntry, changed: Mapping[str, Any]) -> dict[str, Any]:
    return {"pool": entry.name, "batching": batching_values(entry, changed), "changed": dict(changed)}
