"""Routes of models: register, list, show, delete."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastapi import APIRouter
from pydantic import ValidationError
from starlette.requests import Request
from starlette.responses import Response

from daybreak.wire import ErrorCode, FieldError, ModelDeleted, RegisterModelRequest
from daybreak_server.api import path_prefix
from daybreak_server.api.auth.principal import Caller
from daybreak_server.api.dependencies import Dependencies
from daybreak_server.api.errors import (
    MAX_FIELD_CHARS,
    MAX_FIELD_ERRORS,
    ApiError,
    from_validation,
    invalid,
    invalid_field,
)
from daybreak_server.api.http.exception_handlers import error_response
from daybreak_server.api.http.request_body import read_json
from daybreak_server.api.http.responses import json_response
from daybreak_server.api.openai.errors import openai_response
from daybreak_server.api.registry_api import openapi_specs, views
from daybreak_server.api.registry_api.access import Access
from daybreak_server.api.registry_api.records import registered_model
from daybreak_server.api.routing.model_routers import model_not_found
from daybreak_server.domain.kinds import PoolKind
from daybreak_server.domain.models import ModelRecord

MAX_MODEL_BYTES = 64 << 10
"""The maximum size of a registration. It is small, because every gateway reads all models."""
_NAMED = frozenset({PoolKind.ONLINE, PoolKind.SESSIONS})
"""The kinds of pools that a request may name as its model."""
_FIELDS = frozenset({*RegisterModelRequest.model_fields, "model_name"})


def router(ctx: Dependencies) -> APIRouter:
    """The routes, bound to their dependencies."""
    routes = APIRouter(tags=["models"])
    services = ctx.services
    access = Access(services.settings)
    max_bytes = min(MAX_MODEL_BYTES, services.settings.http.max_body_bytes)
    pools = frozenset(entry.name for entry in ctx.catalog)
    answering = sorted(
        (entry for entry in ctx.catalog if entry.spec.kind in _NAMED), key=lambda entry: entry.name
    )
    pool_models = {entry.name: views.pool(entry) for entry in answering}

    @routes.post("/v1/models/register", **openapi_specs.REGISTER_MODEL)
    async def register(request: Request) -> Response:
        """Register a model. `min_replicas` replicas start at once. If it is 0, the first request starts one."""
        access.require(request)
        requested = parse_registration(await read_json(request, max_bytes=max_bytes))
        view = await ctx.registry_cache.refresh()
        _check_name(requested.alias, view.models, pools)
        _check_fallback(requested, view.models, pools)
        record = registered_model(
            requested, now_ms=services.now_ms(), idle_s=services.settings.workers.idle_s
        )
        if not await services.registry.add_model(record):
            raise _taken(requested.alias)
        view = await ctx.registry_cache.refresh()
        shown = views.model(view, requested.alias, trusted=True)
        if shown is None:
            raise model_not_found(requested.alias)  # another request has just deleted it
        location = f"{path_prefix.current()}/v1/models/{requested.alias}"
        return json_response(shown, status=201, headers={"Location": location})

    @routes.get("/v1/models", **openapi_specs.MODELS)
    async def models(request: Request, caller: Caller) -> Response:
        """All models, in the format of OpenAI's API. Pools that answer requests or serve sessions are models too."""
        trusted = caller.admin or access.allows(request)
        view = await ctx.registry_cache.get()
        return json_response(views.model_list(view, pool_models.values(), trusted=trusted))

    @routes.get("/v1/models/{alias:path}", **openapi_specs.MODEL)
    async def model(request: Request, alias: str, caller: Caller) -> Response:
        """One model: its state, its replicas and the progress of a wake. Errors have OpenAI's format."""
        view = await ctx.registry_cache.get()
        shown = views.model(view, alias, trusted=caller.admin or access.allows(request))
        shown = shown or pool_models.get(alias)
        if shown is None:
            return error_response(request, model_not_found(alias), openai_response)
        return json_response(shown)

    @routes.delete("/v1/models/{alias:path}", **openapi_specs.DELETE_MODEL)
    async def delete(request: Request, alias: str) -> Response:
        """Delete a model. Its replicas finish their requests; until then its state is `draining`."""
        access.require(request)
        if await services.registry.mark_deleted(alias) is None:
            raise model_not_found(alias)
        await ctx.registry_cache.refresh()
        return json_response(ModelDeleted(id=alias))

    return routes


def parse_registration(data: dict[str, Any]) -> RegisterModelRequest:
    """The body of a registration. :raises ApiError: ``invalid_input``, which says where unknown fields belong."""
    unknown = [name for name in data if name not in _FIELDS]
    if unknown:
        raise invalid(
            [
                FieldError(
                    field=name[:MAX_FIELD_CHARS] or "body",
                    message="There is no such field. If it is an option of the engine, put it into args: "
                    f'{{"args": {{"{name[:MAX_FIELD_CHARS]}": …}}}}.',
                )
                for name in unknown[:MAX_FIELD_ERRORS]
            ]
        )
    if "source" in data and "model_name" in data:
        raise invalid_field("model_name", "model_name is another name of source. Send one of them.")
    try:
        return RegisterModelRequest.model_validate(data)
    except ValidationError as exc:
        raise from_validation(exc) from exc


def _check_name(alias: str, models: Mapping[str, ModelRecord], pools: frozenset[str]) -> None:
    if alias in pools:
        raise ApiError(
            ErrorCode.CONFLICT,
            f"There is a pool {alias}, and a request may name a pool as its model. Use another alias.",
        )
    existing = models.get(alias)
    if existing is not None and existing.deleted:
        raise ApiError(
            ErrorCode.CONFLICT,
            f"The model {alias} has been deleted, and its replicas still finish their requests. Register it again "
            "when GET /v1/models no longer lists it.",
        )
    if existing is not None:
        raise _taken(alias)


def _check_fallback(
    requested: RegisterModelRequest, models: Mapping[str, ModelRecord], pools: frozenset[str]
) -> None:
    """Refuse a fallback that is a pool. Refuse chains of fallbacks too, because a fallback should answer soon.

    A model may name a fallback that is not registered yet.
    """
    if requested.fallback is None:
        return
    if requested.fallback in pools:
        raise invalid_field("fallback", f"fallback names the pool {requested.fallback}. Name a model.")
    other = models.get(requested.fallback)
    if other is not None and other.fallback is not None:
        raise invalid_field(
            "fallback",
            f"The model {other.alias} has itself the fallback {other.fallback}. Name a model without one.",
        )
    for model in models.values():
        if model.fallback == requested.alias:
            raise invalid_field(
                "fallback",
                f"The model {requested.alias} is the fallback of {model.alias}, so it may not have one itself. "
                "Leave fallback out.",
            )


def _taken(alias: str) -> ApiError:
    return ApiError(
        ErrorCode.CONFLICT,
        f"There is a model {alias}. Use another alias, or delete that model first: DELETE /v1/models/{alias}.",
    )
