"""An evaluation chooses a pool, and says why if it finds none."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from daybreak_server.cli.sessions.evaluation.server import EvaluationError, PoolUnderTest


class _Client:
    def __init__(self, *names: str) -> None:
        self._pools = [SimpleNamespace(name=name, kind="sessions", workload="speech") for name in names]

    async def pools(self) -> list[Any]:
        return [SimpleNamespace(name="video", kind="jobs", workload="video"), *self._pools]


async def find(name: str | None, *pools: str) -> str:
    return (await PoolUnderTest.find(cast("Any", _Client(*pools)), cast("Any", None), name)).name


async def test_the_only_pool_or_the_named_one_is_taken() -> None:
    assert await find(None, "talks") == "talks"
    assert await find("two", "one", "two") == "two"


@pytest.mark.parametrize(
    ("name", "pools", "message"),
    [
        (None, (), "no pool of the server serves sessions"),
        ("three", ("one", "two"), "no pool 'three' for sessions. Choose one with --pool: one, two"),
        ("video", ("one",), "no pool 'video' for sessions"),
        (None, ("one", "two"), "several pools for sessions. Choose one with --pool: one, two"),
    ],
)
async def test_the_message_has_the_next_step(name: str | None, pools: tuple[str, ...], message: str) -> None:
    with pytest.raises(EvaluationError, match=message):
        await find(name, *pools)
