"""Fixtures for the workloads that embed and rerank: tiny models, and a whole path of gateway, group and Valkey."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
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
from daybreak_server.domain.pools import GroupState
from daybreak_server.ports.metrics import Meter
from daybreak_server.settings.tree import Settings

needs_sentence_transformers()


@dataclass
class Whole:
    """A gateway, and groups that it routes to."""

    api: Api
    settings: Settings
    broken: dict[str, list[Cause]]
    """Why the group of a pool broke."""

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
    """Starts a gateway with these pools, and a group of each (as threads of this process)."""
    with ExitStack() as stack:

        def start(
            pools: dict[str, Any], *, meter: Meter | None = None, groups: bool = True, **changes: Any
        ) -> Whole:
            lease = {"lease_s": 6.0, "stall_s": 20.0}
            pools = {name: {"drain_s": 0.0, "lease": lease, **pool} for name, pool in pools.items()}
            tree = make_settings(**changes).model_dump(mode="json", exclude_unset=True)
            settings = Settings.model_validate(
                {**tree, "pools": pools, "data_dir": str(tmp_path), "redis": {"url": valkey.url}}
            )
            causes: dict[str, list[Cause]] = {}
            api = stack.enter_context(Serving(valkey, tmp_path, 0, settings))
            for name in pools if groups else ():
                broken = causes.setdefault(name, [])
                rank = wiring.build_rank(settings, name, on_broken=broken.append, meter=meter)
                rank.start()
                stack.callback(rank.stop, timeout_s=5)

                def ready(name: str = name, rank: Any = rank, broken: list[Cause] = broken) -> bool:
                    assert not broken, broken
                    router = api.context.serving_pools.get(name).router
                    loaded = rank.record is not None and rank.record.state is GroupState.IDLE
                    return loaded and any(group.id == rank.record.id for group in router.groups)

                wait_until(ready, 120, f"a group of {name}")
            return Whole(api, settings, causes)

        yield start
