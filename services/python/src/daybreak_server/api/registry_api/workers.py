"""The routes with which workers register, send heartbeats, and read which models to run."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Mapping
from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import ValidationError
from starlette.requests import Request
from starlette.responses import Response

from daybreak.wire import ErrorCode, WorkerAssignments, WorkerHeartbeat, WorkerRegistered, WorkerRegistration
from daybreak_server.api.dependencies import Dependencies
from daybreak_server.api.errors import MAX_FIELD_CHARS, ApiError, from_validation, invalid_field, not_found
from daybreak_server.api.http.request_body import read_json
from daybreak_server.api.http.responses import json_response
from daybreak_server.api.registry_api import openapi_specs
from daybreak_server.api.registry_api.access import Access
from daybreak_server.api.registry_api.records import assigned_models, registered_worker, reported_worker
from daybreak_server.domain.models import ModelRecord
from daybreak_server.domain.placement import Replica
from daybreak_server.domain.worker_urls import (
    Address,
    WorkerUrl,
    parse_address,
    parse_worker_url,
    refusal,
)
from daybreak_server.ports.registry import UnknownWorkerError, WorkerTakenError
from daybreak_server.settings.workers import WorkerSettings

RESOLVE_TIMEOUT_S = 5.0


def router(ctx: Dependencies) -> APIRouter:
    """The routes, bound to their dependencies."""
    routes = APIRouter(tags=["workers"])
    access = Access(ctx.services.settings)
    settings, max_bytes = ctx.services.settings.workers, ctx.services.settings.http.max_body_bytes
    registry = ctx.services.registry

    @routes.post("/v1/workers", **openapi_specs.REGISTER_WORKER)
    async def register(request: Request) -> Response:
        """Register a worker. It then sends heartbeats, whose answers say which models to run."""
        access.require_of_worker(request)
        try:
            worker = WorkerRegistration.model_validate(await read_json(request, max_bytes=max_bytes))
        except ValidationError as exc:
            raise from_validation(exc) from exc
        url = await _checked_url(worker.url, request, settings)
        record = registered_worker(worker, url=url.text)
        try:
            await registry.add_worker(record, incarnation=worker.incarnation, lease_s=settings.lease_s)
        except WorkerTakenError as exc:
            raise ApiError(ErrorCode.CONFLICT, str(exc)) from exc
        answer = WorkerRegistered(heartbeat_s=settings.heartbeat_s, lease_s=settings.lease_s)
        return json_response(answer, status=201)

    @routes.put("/v1/workers/{id}", **openapi_specs.HEARTBEAT)
    async def heartbeat(request: Request, id: str) -> Response:
        """Store the load of a worker and the state of its models. The answer says which models it should run."""
        access.require(request)
        try:
            reported = WorkerHeartbeat.model_validate(await read_json(request, max_bytes=max_bytes))
        except ValidationError as exc:
            raise from_validation(exc) from exc
        try:
            replicas = await registry.renew_worker(
                reported_worker(id, reported), incarnation=reported.incarnation, lease_s=settings.lease_s
            )
        except UnknownWorkerError as exc:
            raise not_found(str(exc) or f"There is no worker {id[:MAX_FIELD_CHARS]!r}. Register it.") from exc
        except WorkerTakenError as exc:
            raise ApiError(ErrorCode.CONFLICT, str(exc)) from exc
        models = assigned_models(replicas, await _models_of(ctx, replicas))
        return json_response(WorkerAssignments(heartbeat_s=settings.heartbeat_s, models=models))

    @routes.delete("/v1/workers/{id}", **openapi_specs.REMOVE_WORKER)
    async def remove(
        request: Request,
        id: str,
        incarnation: Annotated[str, Query(description="The `incarnation` of the process that ends.")],
    ) -> Response:
        """Remove a worker that ends, unless another process has taken over the worker's id."""
        access.require(request)
        await registry.remove_worker(id, incarnation=incarnation)
        return Response(status_code=204)

    return routes


async def _models_of(ctx: Dependencies, replicas: tuple[Replica, ...]) -> Mapping[str, ModelRecord]:
    """The registered models. If the cached view lacks a model of these replicas, the view is read again."""
    view = await ctx.registry_cache.get()
    if any(replica.alias not in view.models for replica in replicas):
        view = await ctx.registry_cache.refresh()
    return view.models


async def _checked_url(text: str, request: Request, settings: WorkerSettings) -> WorkerUrl:
    """Parse the URL of a worker, and check that a worker may have this URL.

    :raises ApiError: ``invalid_input`` if the URL is wrong or not allowed; ``name_not_resolved`` if its host cannot be
        resolved now.
    """
    try:
        url = parse_worker_url(text)
    except ValueError as exc:
        raise invalid_field("url", str(exc)) from exc
    trusted = bool(settings.token)
    if trusted and not settings.allowed_networks:
        return url
    client = request.scope.get("client")
    refused = refusal(
        url,
        await _addresses(url),
        allowed_networks=settings.allowed_networks,
        registered_from=parse_address(client[0]) if client else None,
        trusted=trusted,
    )
    if refused is not None:
        raise invalid_field("url", refused)
    return url


async def _addresses(url: WorkerUrl) -> list[Address]:
    address = parse_address(url.host)
    if address is not None:
        return [address]
    try:
        async with asyncio.timeout(RESOLVE_TIMEOUT_S):
            found = await asyncio.get_running_loop().getaddrinfo(url.host, url.port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError, TimeoutError) as exc:
        raise ApiError(
            ErrorCode.NAME_NOT_RESOLVED,
            f"The host {url.host} of the worker's URL cannot be resolved here: {exc or 'no answer in time'}. "
            "Correct the name, or register an address with --public-url.",
        ) from exc
    return [address for _, _, _, _, where in found if (address := parse_address(str(where[0]))) is not None]
