"""A test of the baseline of the benchmark ``observability_cost``: tasks run, but the scripts in Redis count nothing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from daybreak_server import wiring
from daybreak_server.adapters.redis import scripts
from testkit.pools import Pool, make_settings
from testkit.valkey import Server
from verification.benchmarks.observability_cost import modes


@pytest.fixture
def scripts_that_count_nothing(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(scripts, "_read", scripts._read)  # restored after the test
    scripts._library.cache_clear()
    modes.count_nothing()
    yield
    scripts._library.cache_clear()


@pytest.mark.usefixtures("scripts_that_count_nothing")
def test_the_scripts_of_the_baseline_do_everything_but_count(valkey: Server, tmp_path: Path) -> None:
    settings = make_settings(valkey, tmp_path)
    with closing(Pool(settings)) as pool:
        rank = wiring.build_rank(settings, pool.name, on_broken=print)
        rank.start()
        pool.wait(pool.submit(message="hi", steps=2))
        assert rank.stop(timeout_s=60)
        totals = pool.call(pool.store.measure(pool.name))
    assert totals.submitted == 1
    counted = {name for name, value in totals.raw.items() if value}
    assert counted <= {"tenants_max", "metered", "wakes"}, "the baseline counts something of a task"
