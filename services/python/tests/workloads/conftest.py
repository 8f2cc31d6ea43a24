"""Fixtures for the workloads that embed and rerank: a gateway and groups, on a real Valkey."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
import pytest

from testkit.text_models import needs_sentence_transformers
from testkit.valkey import Server
from testkit.waiting import wait_until

sys.path.insert(0, str(Path(__file__).parents[1] / "api"))

from api_support import Api, Serving, make_settings

from daybreak_server import wiring
from daybreak_server.domain.causes import Cause
from daybreak_server.ports.metrics import Meter
from daybreak_server.settings.tree import Settings

needs_sentence_transformers()


@dataclass
class Whole:
    """A gateway, and groups that it routes to."""

    api: Api
    settings: Settings
    stack: ExitStack
    meter: Meter | None = None
    broken: dict[str, list[Cause]] = field(default_factory=dict)
    """For each pool, by its name: why its groups broke."""

    def start_group(self, pool: str) -> None:
        """Start a group as threads of this process, and wait until the gateway knows it."""
        broken = self.broken.setdefault(pool, [])
        rank = wiring.build_rank(self.settings, pool, on_broken=broken.append, meter=self.meter)
        rank.start()
        self.stack.callback(rank.stop, timeout_s=5)
        router = self.api.context.serving_pools.get(pool).router

        def ready() -> bool:
            assert not broken, broken
            record = rank.record
            return record is not None and any(group.id == record.id for group in router.groups)

        wait_until(ready, 120, f"a group of {pool}")

    @property
    def client(self) -> httpx2.Client:
        return self.api.client

    def post(self, path: str, status: int = 200, **body: Any) -> Any:
        """POST. :returns: the body of the answer."""
        response = self.client.post(path, json=body)
        assert response.status_code == status, response.text
        return response.json()

    def debug(self, model: str) -> dict[str, Any]:
        response = self.client.get("/debug", params={"model": model})
        assert response.status_code == 200, response.text
        return response.json()


@pytest.fixture
def start_whole(valkey: Server, tmp_path: Path) -> Iterator[Callable[..., Whole]]:
    """A function that starts a gateway with the given pools, and groups of each pool as threads of this process."""
    with ExitStack() as stack:

        def start(
            pools: dict[str, Any], *, meter: Meter | None = None, groups: int = 1, **changes: Any
        ) -> Whole:
            lease = {"lease_s": 6.0, "stall_s": 20.0}
            pools = {name: {"drain_s": 0.0, "lease": lease, **pool} for name, pool in pools.items()}
            tree = make_settings(**changes).model_dump(mode="json", exclude_unset=True)
            settings = Settings.model_validate(
                {**tree, "pools": pools, "data_dir": str(tmp_path), "redis": {"url": valkey.url}}
            )
            api = stack.enter_context(Serving(valkey, tmp_path, 0, settings))
            whole = Whole(api, settings, stack, meter)
            for name in pools:
                for _ in range(groups):
                    whole.start_group(name)
            return whole

        yield start
