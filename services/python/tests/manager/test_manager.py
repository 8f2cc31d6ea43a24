"""Tests of the process that keeps the plan up to date."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import pytest

from daybreak_server.domain.models import ModelRecord
from daybreak_server.manager.manager import TTL_S, Manager
from testkit.memory_registry import MemoryRegistry


async def test_a_manager_that_cannot_plan_gives_its_lease_back() -> None:
    """So that another one may try, and that the metrics show that nobody plans."""
    registry = MemoryRegistry()
    assert await registry.add_model(ModelRecord(alias="bad", source="s", engine="e", target_load=0.0))
    manager = Manager(registry, holder="a")
    with pytest.raises(ZeroDivisionError):
        await manager.round()
    assert (await registry.view()).manager == "a"
    running = asyncio.create_task(manager.run())
    try:
        async with asyncio.timeout(TTL_S / 2):  # before the lease would end by itself
            while (await registry.view()).manager is not None:
                await asyncio.sleep(0.01)
    finally:
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running
