"""Tests of the reason that ``up`` gives if a pool cannot start. The tests write the report on Ray's cluster."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from daybreak_server.local import up
from daybreak_server.local.instance import InstanceError
from daybreak_server.settings.tree import Settings

UNHEALTHY = {
    "status": "UNHEALTHY",
    "message": "The deployments ['EchoGenerator'] are UNHEALTHY.",
    "deployments": {"EchoGenerator": {"message": "A replica's health check failed."}},
}
MISSING = {"rank": 0, "message": "ModelMissingError: there is no folder /models/echo"}


def check(folder: Path, **report: Any) -> None:
    (folder / "report.json").write_text(json.dumps(report))
    settings = Settings.model_validate({"pools": {"echo": {}}})
    up._raise_if_broken(SimpleNamespace(report=folder / "report.json", settings=settings))  # type: ignore[arg-type]


def test_the_reason_of_a_rank_is_shown_instead_of_what_serve_says(tmp_path: Path) -> None:
    with pytest.raises(
        InstanceError, match="rank 0 of pool echo cannot start: ModelMissingError: there is no"
    ):
        check(tmp_path, apps={"echo": UNHEALTHY}, failures={"echo": {"count": 1, **MISSING}})


def test_without_a_reason_the_words_of_serve_are_shown(tmp_path: Path) -> None:
    with pytest.raises(InstanceError, match=r"are UNHEALTHY\. A replica's health check failed\."):
        check(tmp_path, apps={"echo": UNHEALTHY}, failures={})


def test_a_first_failure_of_a_rank_is_tried_again(tmp_path: Path) -> None:
    check(
        tmp_path,
        apps={"echo": {**UNHEALTHY, "status": "DEPLOYING"}},
        failures={"echo": {"count": 1, **MISSING}},
    )
    with pytest.raises(InstanceError, match="no folder /models/echo"):
        check(tmp_path, apps={}, failures={"echo": {"count": up._MAX_FAILURES, **MISSING}})
