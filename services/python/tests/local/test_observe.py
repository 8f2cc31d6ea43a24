"""Tests of ``daybreakd up --observe``: Prometheus evaluates the alerts, and ends when ``up`` ends."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import pytest

from daybreak_server.local.instance import Instance, InstanceError
from daybreak_server.local.observe import NAMESPACE, observer, write_ray_targets
from daybreak_server.local.supervisor import ProcessSupervisor
from testkit.system import request
from testkit.waiting import wait_until

needs_prometheus = pytest.mark.skipif(
    shutil.which("prometheus") is None,
    reason="prometheus is not on PATH; on Debian: apt-get install prometheus",
)
GATEWAY = "http://127.0.0.1:1"


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[Instance]:
    instance = Instance(tmp_path / "d")
    instance.open()
    yield instance
    assert instance.close() == []


def test_without_prometheus_the_error_says_how_to_get_it(
    instance: Instance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(instance.folder))
    with pytest.raises(InstanceError, match="apt-get install prometheus"):
        observer(instance, gateway=GATEWAY)


@needs_prometheus
def test_prometheus_scrapes_the_gateway_and_ray_and_evaluates_the_alerts(instance: Instance) -> None:
    """The labels equal those that the chart's monitors set, so the chart's dashboards and alerts work here too."""
    found = observer(instance, gateway=GATEWAY)
    write_ray_targets(found.folder / "ray-targets.json", ["127.0.0.1:2"])
    supervisor = ProcessSupervisor([found.process], say=lambda _line: None)
    supervisor.start()
    try:
        assert supervisor.wait_ready(stopping=lambda: False)
        groups = request(f"{found.url}/api/v1/rules")["data"]["groups"]
        assert [group["name"] for group in groups] == ["daybreak-gateway", "daybreak-ray"]
        targets = wait_until(lambda: _targets(found.url), 60, "both targets")
        assert targets == {
            ("daybreak", NAMESPACE, "127.0.0.1:1"),
            ("daybreak", NAMESPACE, "127.0.0.1:2"),
        }
    finally:
        supervisor.stop()


def _targets(url: str) -> set[tuple[str, str, str]] | None:
    active = request(f"{url}/api/v1/targets")["data"]["activeTargets"]
    found = {tuple(target["labels"][name] for name in ("job", "namespace", "instance")) for target in active}
    return found if len(found) == 2 else None


@needs_prometheus
def test_promtool_accepts_the_configuration_and_grafana_gets_the_dashboards(instance: Instance) -> None:
    found = observer(instance, gateway=GATEWAY)
    config = found.folder / "prometheus.json"
    result = subprocess.run(
        ["promtool", "check", "config", config], check=False, text=True, capture_output=True
    )
    assert result.returncode == 0, result.stdout + result.stderr
    provisioned = found.folder / "grafana"
    (source,) = json.loads((provisioned / "datasources" / "daybreak.yaml").read_text())["datasources"]
    assert source["url"] == found.url
    (provider,) = json.loads((provisioned / "dashboards" / "daybreak.yaml").read_text())["providers"]
    assert len(list(Path(provider["options"]["path"]).glob("daybreak-*.json"))) == 8
    assert any(found.url in line for line in found.lines())
    made_for = version("grafana-foundation-sdk").rpartition("!")[2]
    assert any(line.endswith(f"grafana/grafana:{made_for}") for line in found.lines())
