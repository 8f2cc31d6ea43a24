"""The example settings of embedding are valid, down to the options of the workloads."""

from __future__ import annotations

from pathlib import Path

import pytest

from daybreak_server.api.intake.catalog import Catalog
from daybreak_server.settings.tree import load_settings

EXAMPLES = Path(__file__).parents[4] / "examples"


@pytest.mark.parametrize("name", ["embed-dev.yaml", "embed-production.yaml"])
def test_example_settings_are_valid(name: str) -> None:
    settings = load_settings(EXAMPLES / name, environ={})
    catalog = Catalog(settings)
    assert {entry.name: entry.spec.name for entry in catalog} == {"embed": "embed", "rerank": "rerank"}
    assert settings.http.default_pools.model_dump(exclude_none=True) == {"embed": "embed", "rerank": "rerank"}


def test_options_that_do_not_exist_are_refused_before_anything_starts(tmp_path: Path) -> None:
    path = tmp_path / "daybreak.yaml"
    path.write_text("pools: {embed: {model: m, options: {cache_gb: 1}}}")
    with pytest.raises(ValueError, match="cache_gb"):
        Catalog(load_settings(path, environ={}))
