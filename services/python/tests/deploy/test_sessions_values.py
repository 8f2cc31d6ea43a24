"""The chart's example values for sessions reach gateways, groups and KEDA. ``e2e/test_sessions.py`` runs such pools."""

from __future__ import annotations

from pathlib import Path

from deploy_chart import CHART, render
from test_embed_values import reserved, settings_of_the_head
from test_rendered import pools

from daybreak_server import wiring
from daybreak_server.api.intake.catalog import Catalog
from daybreak_server.cli.doctor.cluster import judge_triggers

EXAMPLE = CHART / "ci" / "sessions-values.yaml"
POOL = "speech"


def test_the_example_is_valid_down_to_the_options_of_the_workload(tmp_path: Path) -> None:
    settings = settings_of_the_head(POOL, tmp_path, example=EXAMPLE)
    entry = Catalog(settings).get(POOL)
    assert (entry.spec.name, entry.spec.kind, entry.takes_tasks) == ("speech", "sessions", False)
    assert {pair.target for pair in entry.spec.pairs(entry.settings.workload_options)} == {"de", "en", "zh"}
    assert reserved(settings, POOL) == {"num_cpus": 2}
    limits = wiring.session_limits(settings)(POOL)
    assert (limits.max_sessions, limits.timeout_s) == (96, 120)
    assert limits.max_per_tenant == settings.http.max_sessions_per_tenant


def test_keda_scales_the_example_by_the_target_load_of_its_generator_pool() -> None:
    rendered = render(EXAMPLE)
    assert list(pools(rendered)) == [POOL]
    assert pools(rendered)[POOL].spec.target_load == 24
    assert [check.level for check in judge_triggers([POOL], rendered.all("ScaledObject"))] == ["ok"]
