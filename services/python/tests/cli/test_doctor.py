"""``daybreakd doctor``: what is in order is said, what is not is said with what to do."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from daybreak_server.entrypoints.doctor import Check, as_lines, broken, examine
from daybreak_server.settings import Settings

if TYPE_CHECKING:
    from .conftest import Daybreakd

ECHO = {"echo": {"workload": "echo"}}


def report(tmp_path: Path, **tree: object) -> dict[str, Check]:
    """The checks of these settings, by what they are about."""
    base: dict[str, object] = {"data_dir": tmp_path / "data", "http": {"port": 0}, "pools": ECHO}
    return {check.what: check for check in examine(Settings.model_validate({**base, **tree}))}


def test_a_machine_in_order(daybreakd: Daybreakd) -> None:
    """With everything installed and default settings there is nothing to mend: code 0, a line each."""
    done = daybreakd("doctor", DAYBREAK_POOLS__ECHO__WORKLOAD="echo", DAYBREAK_HTTP__PORT="0")
    assert done.code == 0, done.out
    for line in ("✓ ray", "✓ redis", "✓ pool echo", "✓ files", "✓ port", "✓ gpus"):
        assert line in done.out
    assert "✗" not in done.out


def test_what_is_broken_is_code_1(daybreakd: Daybreakd) -> None:
    """One broken thing is code 1, a ✗, and a line that says what to do; JSON has the same."""
    environ = {
        "DAYBREAK_POOLS__ECHO__WORKLOAD": "echo",
        "DAYBREAK_POOLS__ODD__WORKLOAD": "odd",
        "DAYBREAK_HTTP__PORT": "0",
    }
    done = daybreakd("doctor", **environ)
    assert done.code == 1
    lines = done.out.splitlines()
    at = next(number for number, line in enumerate(lines) if line.startswith("✗ pool odd"))
    assert "no workload 'odd' is installed; there are: " in lines[at]
    assert lines[at + 1].strip() == "→ mend DAYBREAK_POOLS__ODD__WORKLOAD"
    assert lines[-1].startswith("1 to mend")
    checks = json.loads(daybreakd("doctor", "--json", **environ).out)
    assert [check["what"] for check in checks if check["level"] == "error"] == ["pool odd"]


def test_each_pools_model_is_looked_at(tmp_path: Path) -> None:
    """A model's folder that is missing or no model is found before a GPU waits for it."""
    (tmp_path / "empty").mkdir()
    checks = report(
        tmp_path,
        pools={
            "echo": {"workload": "echo", "model": str(tmp_path / "none")},
            "video": {"workload": "video", "model": str(tmp_path / "empty")},
        },
    )
    assert checks["pool echo"].level == checks["pool video"].level == "error"
    assert "model_index.json" in checks["pool video"].found
    assert checks["pool video"].advice == f"daybreakd models verify {tmp_path / 'empty'}"
    assert checks["torch"].level == "ok"


def test_the_store_of_files_is_tried(tmp_path: Path) -> None:
    """A folder that cannot be is found by trying, and the message is the store's own."""
    (tmp_path / "file").write_text("")
    files = report(tmp_path, artifacts={"url": (tmp_path / "file" / "below").as_uri()})["files"]
    assert files.level == "error"
    assert str(tmp_path / "file" / "below") in files.found
    assert files.advice == "a file or a symbolic link stands where a folder is needed"
    assert report(tmp_path)["files"].level == "ok"
    assert os.listdir(tmp_path / "data" / "artifacts") == []


def test_a_port_that_is_taken(tmp_path: Path) -> None:
    """A taken port is a warning (a Daybreak may run already); an address that is not ours is an error."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        taken = report(tmp_path, http={"port": port})["port"]
    assert (taken.level, f"127.0.0.1:{port} is taken" in taken.found) == ("warning", True)
    assert "DAYBREAK_HTTP__PORT" in taken.advice
    assert report(tmp_path, http={"port": port})["port"].level == "ok"
    assert report(tmp_path, http={"host": "192.0.2.1", "port": port})["port"].level == "error"


def test_gpus_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pool on `cuda` wants a GPU for each rank of each group; what nvidia-smi says is shown."""
    tool = tmp_path / "bin" / "nvidia-smi"
    tool.parent.mkdir()
    tool.write_text("#!/bin/sh\necho 'NVIDIA H200, 143771 MiB'\necho 'NVIDIA H200, 143771 MiB'\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tool.parent), prepend=os.pathsep)
    pool = {"workload": "echo", "device": "cuda", "ranks": 2, "groups": 1}
    enough = report(tmp_path, pools={"echo": pool})["gpus"]
    assert (enough.level, enough.found) == ("ok", "NVIDIA H200, 143771 MiB, NVIDIA H200, 143771 MiB")
    few = report(tmp_path, pools={"echo": {**pool, "groups": 2}})["gpus"]
    assert few.level == "error"
    assert "need 4" in few.found
    tool.write_text("#!/bin/sh\nexit 9\n")
    assert "none seen" in report(tmp_path)["gpus"].found


def test_more_ranks_than_processors(tmp_path: Path) -> None:
    """More ranks than CPUs works, slowly: a warning."""
    check = report(tmp_path, pools={"echo": {"workload": "echo", "ranks": 500}})["processors"]
    assert check.level == "warning"
    assert check.found.endswith("for 500 rank(s)")


def test_the_report_counts() -> None:
    """The last line tells how much there is to do."""
    fine = Check(level="ok", what="a", found="b")
    odd = Check(level="warning", what="longer", found="c", advice="do")
    assert as_lines([fine]).splitlines() == ["✓ a  b", "", "all is in order"]
    assert as_lines([fine, odd]).splitlines() == [
        "✓ a       b",
        "! longer  c",
        "          → do",
        "",
        "0 to mend, 1 to know of",
    ]
    assert not broken([fine, odd])
