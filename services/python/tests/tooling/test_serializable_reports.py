"""Tests that xdist can send every report to the main process, whatever the test has logged."""

from __future__ import annotations

from testkit.serializable_reports import encodable


def test_lone_surrogates_of_a_report_become_escapes() -> None:
    report = {"sections": [("Captured log call", "caf\udce9.mp4")], "longrepr": None, "duration": 0.5}
    assert encodable(report) == {
        "sections": [("Captured log call", "caf\\udce9.mp4")],
        "longrepr": None,
        "duration": 0.5,
    }


def test_other_text_of_a_report_is_unchanged() -> None:
    assert encodable(["日本", "é", 3]) == ["日本", "é", 3]
