"""Wrong calls of ``daybreakd sessions evaluate``. test_sessions_evaluation.py runs the command against a server."""

from __future__ import annotations

import sys

import pytest


def test_without_matplotlib_it_says_which_extra_to_install(daybreakd, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    result = daybreakd("sessions", "evaluate", "--out", str(tmp_path / "out"))
    assert result.code == 1
    assert "daybreak-server[evaluate]" in result.err
    assert "--no-charts" in result.err
    assert not (tmp_path / "out").exists()


def test_the_test_of_health_needs_no_matplotlib(daybreakd, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    arguments = ("--test", "health", "--url", "http://127.0.0.1:1", "--out", str(tmp_path / "out"))
    result = daybreakd("sessions", "evaluate", *arguments)
    assert "127.0.0.1:1" in result.err  # the command has tried to reach the server
    assert "matplotlib" not in result.err


@pytest.mark.parametrize(
    "arguments",
    [
        ("--basic-test-only", "--batch-test-only"),
        ("--basic-test-only", "--test", "single"),
        ("--test", "all"),
        ("--num-users", "0"),
        ("--test-duration", "0"),
        ("--batch-size", "33"),
    ],
)
def test_wrong_options_exit_with_code_2(daybreakd, arguments):
    assert daybreakd("sessions", "evaluate", "--no-charts", *arguments).code == 2


def test_a_server_that_does_not_answer_is_an_error_and_no_traceback(daybreakd, tmp_path):
    result = daybreakd(
        "sessions", "evaluate", "--no-charts", "--out", str(tmp_path / "out"), "--url", "http://127.0.0.1:1"
    )
    assert result.code == 1
    assert "127.0.0.1:1" in result.err
    assert not (tmp_path / "out").exists()
