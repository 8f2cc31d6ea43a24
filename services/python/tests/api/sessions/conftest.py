"""Fixtures for sessions: a real server with sessions in memory, and clients of its WebSockets."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parent))

from api_support import Serving, make_settings
from session_support import POOLS, Speech

from testkit.session_memory import MemorySessions
from testkit.valkey import Server


@pytest.fixture
def start_speech(valkey: Server, tmp_path: Path) -> Iterator[Callable[..., Speech]]:
    """A function that starts a server with the given settings and session store. The default pool is ``speech``."""
    with ExitStack() as stack:

        def start(
            pools: dict[str, Any] | None = None, store: MemorySessions | None = None, **changes: Any
        ) -> Speech:
            settings = make_settings(pools=POOLS if pools is None else pools, **changes)
            store = store or MemorySessions()
            return Speech(stack.enter_context(Serving(valkey, tmp_path, 0, settings, store)), store)

        yield start


@pytest.fixture
def speech(start_speech: Callable[..., Speech]) -> Speech:
    """A server with the usual settings."""
    return start_speech()
