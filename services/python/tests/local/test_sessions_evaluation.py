"""``daybreakd sessions evaluate`` against ``daybreakd dev`` with simulated speech: what it measures and writes."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from testkit.system import System, request

BATCHES = ("--batch-size", "1", "--batch-size", "8", "--batch-timeout", "300")
DRAWS = find_spec("matplotlib") is not None


@pytest.fixture(scope="module")
def dev(systems: Callable[..., System]) -> System:
    system = systems("dev", DAYBREAK_POOLS__TALK__WORKLOAD="simulated-speech")
    system.ready(60)
    return system


def command(dev: System, out: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    daybreakd = str(Path(sys.executable).with_name("daybreakd"))
    options = ["--url", dev.url, "--out", str(out), *(() if DRAWS else ("--no-charts",)), *arguments]
    return subprocess.run(
        [daybreakd, "sessions", "evaluate", *options],
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )


def summary(out: Path) -> dict[str, Any]:
    return json.loads((out / "summary.json").read_text())


def test_the_user_tests_measure_text_and_lag_and_batches(dev, tmp_path):
    options = ("--num-users", "4", "--test-duration", "3", "--to", "German")
    done = command(dev, tmp_path, "--basic-test-only", *options)
    assert done.returncode == 0, done.stderr + done.stdout
    found = summary(tmp_path)
    assert found["options"]["target"] == "de"  # the code of the language named by `--to`
    assert list(found["tests"]) == ["health", "single", "stream", "concurrent"]
    concurrent = found["tests"]["concurrent"]
    assert (concurrent["users"], concurrent["finished"]) == (4, 4)
    assert concurrent["words"] > 20
    assert concurrent["lag_p95_s"] >= concurrent["lag_p50_s"] > 0
    assert concurrent["stream_laal_ca_s"] > concurrent["stream_laal_s"]
    assert sum(size * count for size, count in sizes(concurrent, "prefill")) >= 4 * 6  # 6 blocks each
    assert found["tests"]["single"]["bleu"] == 100.0
    assert [size for size, _ in sizes(found["tests"]["single"], "prefill")] == [1]
    assert "reference 3 of 3" in done.stdout
    page = (tmp_path / "README.md").read_text()
    assert "| BLEU | 100 | 100 |" in page
    assert (tmp_path / "user_test_charts.png").exists() == DRAWS
    assert found["batch_tests"] == []


def sizes(test: dict[str, Any], phase: str) -> list[tuple[int, int]]:
    return [(int(size), count) for size, count in test["batches"][phase].items()]


def test_the_batch_test_changes_the_batches_and_restores_the_settings(dev, tmp_path):
    before = request(f"{dev.url}/ray/stats?pool=talk")["configuration"]
    done = command(dev, tmp_path, "--batch-test-only", "--num-users", "4", "--test-duration", "1", *BATCHES)
    assert done.returncode == 0, done.stderr + done.stdout
    found = summary(tmp_path)
    assert found["tests"] == {}
    cells = {(cell["max_batch_size"], cell["batch_timeout_ms"]): cell for cell in found["batch_tests"]}
    assert len(cells) == 2
    for (size, _), cell in cells.items():
        assert cell["finished"] == 4
        assert max(number for number, _ in sizes(cell, "prefill")) <= size
    assert cells[1, 300.0]["mean_batch_size"] == 1.0
    assert cells[8, 300.0]["mean_batch_size"] > 1.0
    assert request(f"{dev.url}/ray/stats?pool=talk")["configuration"] == before
    assert (tmp_path / "batch_test_heatmaps.png").exists() == DRAWS


def test_one_test_can_run_alone_and_mistakes_are_explained(dev, tmp_path):
    done = command(dev, tmp_path, "--test", "health")
    assert done.returncode == 0, done.stderr
    assert summary(tmp_path)["tests"] == {"health": {"passed": True}}
    done = command(dev, tmp_path, "--test", "single", "--pool", "echo")
    assert done.returncode == 1
    assert "Choose one with --pool: talk" in done.stderr
    done = command(dev, tmp_path, "--test", "single", "--test-duration", "1", "--to", "French")
    assert (done.returncode, "en -> French" in done.stderr) == (1, True)
    done = command(dev, tmp_path, "--basic-test-only", "--batch-test-only")
    assert done.returncode == 2
