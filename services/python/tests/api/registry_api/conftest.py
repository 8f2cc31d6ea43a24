"""Fixtures for the routes of workers and models."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from testkit.valkey import Server

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parent))

from api_support import Api
from registry_support import PlannedGateway


@pytest.fixture
def start_gateway(start_api: Callable[..., Api], valkey: Server) -> Callable[..., PlannedGateway]:
    """A function that starts a gateway with changed settings. The test, not the gateway's manager, decides which worker
    runs which model."""

    def start(**changes: Any) -> PlannedGateway:
        gateway = PlannedGateway(start_api(**changes), valkey.url)
        gateway.plan()
        return gateway

    return start


@pytest.fixture
def gateway(start_gateway: Callable[..., PlannedGateway]) -> PlannedGateway:
    """A gateway with the usual settings."""
    return start_gateway()
