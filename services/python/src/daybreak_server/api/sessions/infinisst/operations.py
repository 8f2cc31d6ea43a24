"""The routes of InfiniSST that show and change how the groups of a pool batch their sessions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Annotated, Any

from fastapi import APIRouter
from pydantic import Field, ValidationError
from starlette.requests import Request
from starlette.responses import Response

from daybreak.wire import ErrorCode
from daybreak_server.api import serializers
from daybreak_server.api.auth.principal import Caller
from daybreak_server.api.errors import ApiError, from_validation, invalid_field
from daybreak_server.api.http.responses import json_response
from daybreak_server.api.intake.catalog import PoolEntry
from daybreak_server.api.sessions import specs
from daybreak_server.api.sessions.infinisst.fields import Fields, read_fields
from daybreak_server.api.sessions.service import SessionService
from daybreak_server.batching.iterations import strategy_names
from daybreak_server.domain.sessions import GroupSessions, SessionsOverview, SessionsThroughput
from daybreak_server.settings.rules.numbers import NUMBER
from daybreak_server.settings.sessions import SessionSettings

_DYNAMIC, _ONE_AT_A_TIME = "iteration", "single"
_BALANCE = "least_loaded"
_LIVE = (
    "strategy",
    "max_batch_size",
    "batch_timeout_ms",
    "max_decode_delay_ms",
    "gather_size",
    "gather_wait_ms",
    "max_batch_tokens",
)
"""The settings that ``/ray/configure`` changes. They have the same names in the pool's section ``sessions``."""


class Configure(Fields):
    """``POST /ray/configure``. Only types are checked here; :class:`SessionSettings` then checks the limits."""

    pool: str | None = None
    max_batch_size: Annotated[int | None, NUMBER] = None
    batch_timeout_ms: Annotated[float | None, NUMBER] = None
    enable_dynamic_batching: bool | None = None
    strategy: Annotated[str | None, Field(max_length=200)] = None
    max_decode_delay_ms: Annotated[float | None, NUMBER] = None
    gather_size: Annotated[int | None, NUMBER] = None
    gather_wait_ms: Annotated[float | None, NUMBER] = None
    max_batch_tokens: Annotated[int | None, NUMBER] = None
    load_balance_strategy: Annotated[str | None, Field(max_length=40)] = None


def add(routes: APIRouter, service: SessionService) -> None:
    """Add the routes."""
    ctx = service.ctx
    configuration = Configuration(service)

    @routes.get("/ray/stats", **specs.RAY_STATS)
    async def ray_stats(caller: Caller, *, pool: str | None = None) -> Response:
        """The sessions, the groups and the batching of a pool."""
        entry = service.pools.get(pool)
        overview = await service.store.sessions_overview(entry.name)
        view = await ctx.pool_views.get(entry.name)
        return json_response(
            {
                "ray_based": True,
                "pool": entry.name,
                **_counts(overview),
                "groups": [_group(group) for group in overview.groups],
                "queue_sizes": _queue_sizes(overview),
                "throughput": _throughput(group.measured.throughput for group in overview.groups),
                "lag_ms": max((group.measured.lag_ms for group in overview.groups), default=0.0),
                "wake": serializers.pool_health(entry, view, ctx.services.now_ms()).model_dump(
                    mode="json", exclude_none=True
                ),
                "configuration": await configuration.shown(entry),
            }
        )

    @routes.post("/ray/configure", **specs.CONFIGURE)
    async def configure(request: Request, caller: Caller) -> Response:
        """Change how the groups of a pool form batches, without a restart."""
        sent = await read_fields(request, Configure, max_bytes=ctx.services.settings.http.max_body_bytes)
        if not caller.admin:
            raise ApiError(ErrorCode.FORBIDDEN, "Only administrators may change how a pool forms batches.")
        entry = service.pools.get(sent.pool)
        await configuration.change(entry, sent)
        return json_response({"success": True, "configuration": await configuration.shown(entry)})

    @routes.get("/stats", **specs.STATS)
    async def stats(caller: Caller, *, pool: str | None = None) -> Response:
        """The queues of each group's scheduler."""
        entry = service.pools.get(pool)
        overview = await service.store.sessions_overview(entry.name)
        shown = {"queue_sizes": _queue_sizes(overview), **_counts(overview)}
        return json_response({"scheduler_stats": shown, "pool": entry.name})


class Configuration:
    """The settings by which the groups of a pool form batches, with the changes that administrators have made."""

    def __init__(self, service: SessionService) -> None:
        self._services = service.ctx.services

    async def shown(self, entry: PoolEntry) -> dict[str, Any]:
        """The current settings under Daybreak's names, and two further fields of InfiniSST's API."""
        values = await self._values(entry)
        return {
            **{name: values[name] for name in _LIVE},
            "enable_dynamic_batching": values["strategy"] != _ONE_AT_A_TIME,
            "load_balance_strategy": _BALANCE,
        }

    async def change(self, entry: PoolEntry, sent: Configure) -> None:
        """Store the changes. :raises ApiError: ``invalid_input``, if a value is refused. Then nothing is stored."""
        if sent.load_balance_strategy not in {None, _BALANCE}:
            raise invalid_field(
                "load_balance_strategy",
                f"Groups that have room take sessions themselves, so no other value has an effect: use {_BALANCE}.",
            )
        configured = entry.settings.session_settings.strategy
        usable = [*strategy_names.names(), *([configured] if ":" in configured else [])]
        if sent.strategy is not None and sent.strategy not in usable:
            raise invalid_field(
                "strategy", f"There is no strategy of that name here. Use {', '.join(usable)}."
            )
        changes = {name: value for name in _LIVE if (value := getattr(sent, name)) is not None}
        before = await self._values(entry)
        if sent.enable_dynamic_batching is not None and sent.strategy is None:
            changes["strategy"] = _strategy(
                before["strategy"], configured, dynamic=sent.enable_dynamic_batching
            )
        try:
            checked = SessionSettings.model_validate({**before, **changes}).values()
        except ValidationError as exc:
            raise from_validation(exc) from exc
        await self._services.batching.set_batching(entry.name, {name: checked[name] for name in changes})

    async def _values(self, entry: PoolEntry) -> dict[str, Any]:
        changed: Mapping[str, Any] = (await self._services.store.pool(entry.name)).batching
        return {**entry.settings.session_settings.values(), **changed}


def _strategy(present: str, configured: str, *, dynamic: bool) -> str:
    """The strategy after dynamic batching was switched on or off."""
    if not dynamic:
        return _ONE_AT_A_TIME
    if present != _ONE_AT_A_TIME:
        return present
    return configured if configured != _ONE_AT_A_TIME else _DYNAMIC


def _counts(overview: SessionsOverview) -> dict[str, Any]:
    return {
        "active_sessions": overview.open - overview.waiting,
        "waiting_sessions": overview.waiting,
        "open_sessions": overview.open,
    }


def _group(group: GroupSessions) -> dict[str, Any]:
    return {
        "id": group.group,
        "sessions": group.sessions,
        "room": group.measured.room,
        "full": group.measured.full,
        "lag_ms": round(group.measured.lag_ms, 1),
        "latency_multiplier": group.measured.latency_multiplier,
        "throughput": _throughput([group.measured.throughput]),
        "batches": {
            phase: {str(size): count for size, count in sizes.items()}
            for phase, sizes in group.measured.batches.items()
        },
    }


def _throughput(groups: Iterable[SessionsThroughput]) -> dict[str, float]:
    """The throughput of all these groups together."""
    measured = list(groups)
    return {
        "audio_seconds_per_second": round(sum(group.audio_s for group in measured), 3),
        "tokens_per_second": round(sum(group.tokens for group in measured), 3),
        "batches_per_second": round(sum(group.batches for group in measured), 3),
    }


def _queue_sizes(overview: SessionsOverview) -> dict[str, dict[str, int]]:
    return {
        group.group: {
            "sessions": group.sessions,
            "prefill": group.measured.prefill,
            "decode": group.measured.decode,
        }
        for group in overview.groups
    }
