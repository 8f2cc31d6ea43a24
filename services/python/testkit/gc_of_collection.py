"""A pytest plugin that keeps the garbage collector away from what pytest's collection creates.

Modules and tests are a million objects that live until the end of the run. Each of the workers of a parallel run would
examine them again and again while it creates them, which is a fifth of the CPU time of its start.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Iterator[None]:
    """Collect without the garbage collector, and exclude what exists then from later garbage collections."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()
