"""A range of ports is checked when the settings are read."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from daybreak_server import wiring
from daybreak_server.settings.rules.port_range import ports_of
from daybreak_server.settings.tree import PoolSettings, Settings


def test_a_range_has_both_its_ends() -> None:
    assert ports_of("20100-20102") == range(20100, 20103)
    assert list(ports_of("65535")) == [65535]


@pytest.mark.parametrize("text", ["", "0-10", "10-9", "1-65536", "a", "1-2-3", "-5", " 1", "1.5"])
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(ValidationError, match="must be"):
        PoolSettings(workload="echo-serve", ports=text)


def test_a_group_without_a_range_listens_at_any_free_port() -> None:
    settings = Settings.model_validate({"pools": {"answers": {"workload": "echo-serve"}}})
    assert list(wiring.group_config(settings, "answers").ports) == [0]
