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
from model_api_support import Face


@pytest.fixture
def start_face(start_api: Callable[..., Api], valkey: Server) -> Callable[..., Face]:
    """Starts a gateway with the settings of the call. Its manager is kept from planning."""

    def start(**changes: Any) -> Face:
        face = Face(start_api(**changes), valkey.url)
        face.plan()
        return face

    return start


@pytest.fixture
def face(start_face: Callable[..., Face]) -> Face:
    """A gateway with the usual settings."""
    return start_face()
