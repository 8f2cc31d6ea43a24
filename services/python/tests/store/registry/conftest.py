"""A fixture: the registry of workers and models, on Valkey and on Redis."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest_asyncio

from testkit.registry_driver import RegistryDriver
from testkit.valkey import Server


@pytest_asyncio.fixture
async def driver(server: Server) -> AsyncIterator[RegistryDriver]:
    """An empty registry that has ticked once."""
    driver = RegistryDriver(server.url)
    await driver.registry.tick()
    yield driver
    await driver.close()
