"""The fault tests of sessions: a small run with a kill keeps every promise, and a wrong text breaks one."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

from verification.faults.options import ClusterOptions
from verification.faults.scenario_catalogue import ScenarioContext, ViolatedError
from verification.faults.sessions import client
from verification.faults.sessions.checker import owners
from verification.faults.sessions.losses import SLOW, scripts
from verification.faults.sessions.trial import trial


def test_a_small_run_with_a_killed_group_keeps_every_promise(tmp_path: Path) -> None:
    context = ScenarioContext(options=ClusterOptions(folder=tmp_path / "cluster"), seed=3)
    with trial(context, scripts(3, 4.0), groups=2, model=SLOW) as run:
        run.clients.wait_for_texts(3)
        run.cluster.kill(run.busiest())
        seen = run.decide()
    assert len(seen.sessions) == 3
    assert owners(seen) >= 1
    assert [line["kind"] for line in seen.faults] == ["kill-leader"]


def test_a_session_with_another_text_breaks_a_promise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The client expects the text of audio that is one sample longer than the audio that it sends."""
    expected = client.expected_text
    monkeypatch.setattr(client, "expected_text", lambda audio, target: expected(audio + b"ab", target))
    context = ScenarioContext(options=ClusterOptions(folder=tmp_path / "cluster"), log=lambda _: None)
    with pytest.raises(ViolatedError, match="× text"), trial(context, scripts(1, 1.0), groups=1) as run:
        run.decide()
