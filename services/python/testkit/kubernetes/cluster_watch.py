"""A Prometheus on this machine that watches an installation on a cluster. Its targets come from the chart's monitors.

The cluster of the tests may not have the Prometheus operator. So ``helm template`` renders the chart as for a cluster
that has this operator, with the installation's values. The monitors are read from the result. Prometheus gets the
chart's rules, but with windows and waits divided by ``FACTOR``. ``chart_rules`` has the rules without this change.
"""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import yaml

from daybreak_server.local.free_ports import free_port
from daybreak_server.observability.alerts import Thresholds
from daybreak_server.observability.prometheus_rules import Place, rule_groups
from testkit.kubernetes import monitors
from testkit.kubernetes.discovery import Discovery
from testkit.kubernetes.release import CHART, NAME
from testkit.prometheus import Watch
from testkit.system import try_request
from testkit.waiting import wait_until

FACTOR = 75.0
"""Divides the windows and waits of alerts: 15 minutes become 12 s. Windows stay at least 6 s long."""
INTERVAL_S = 1
_KINDS = ("keda.sh/v1alpha1", "ray.io/v1/RayCluster")
_MONITORING = ("ServiceMonitor", "PodMonitor", "PrometheusRule")


class ClusterWatch:
    """Prometheus and Alertmanager with the chart's monitors, and with alerts whose windows are shortened."""

    def __init__(self, folder: Path, *, namespace: str, values: Mapping[str, Any]) -> None:
        self.namespace = namespace
        self.watch = Watch(folder)
        rendered = _render(namespace, values)
        self.monitors = [item for item in rendered if item["kind"] in _MONITORING[:2]]
        (rule,) = [item for item in rendered if item["kind"] == "PrometheusRule"]
        self.chart_rules: list[dict[str, Any]] = [
            rule for group in rule["spec"]["groups"] for rule in group["rules"]
        ]
        found = frozenset(name for monitor in self.monitors for name in monitors.namespaces(monitor))
        self._discovery = Discovery(folder, namespaces=found)
        self._proxy: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start to scrape the cluster."""
        self._discovery.start()
        proxy = self._start_proxy()
        interval = f"{INTERVAL_S}s"
        place = Place(here=f'namespace="{self.namespace}"', thresholds=asdict(Thresholds()), factor=FACTOR)
        targets = [{"static_configs": [{"targets": [self.watch.alertmanager]}]}]
        self.watch.start_with(
            {
                "global": {"scrape_interval": interval, "evaluation_interval": interval},
                "rule_files": [str(self.watch.write("rules.json", {"groups": rule_groups(place)}))],
                "scrape_configs": monitors.scrape_configs(
                    self.monitors, discovery=self._discovery, proxy=proxy, interval=interval
                ),
                "alerting": {"alertmanagers": targets},
            }
        )

    def stop(self) -> None:
        self.watch.stop()
        self._discovery.close()
        if self._proxy is not None:
            self._proxy.terminate()
            self._proxy.wait(30)

    def _start_proxy(self) -> str:
        port = free_port()
        self._proxy = subprocess.Popen(
            ["kubectl", "proxy", f"--port={port}"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        url = f"http://127.0.0.1:{port}"
        wait_until(lambda: try_request(f"{url}/version"), 30, "kubectl proxy")
        return url


def _render(namespace: str, values: Mapping[str, Any]) -> list[dict[str, Any]]:
    kinds = (*_KINDS, *(f"monitoring.coreos.com/v1/{kind}" for kind in _MONITORING))
    command = ["helm", "template", NAME, str(CHART), "--namespace", namespace, "--values", "-"]
    command += [part for kind in kinds for part in ("--api-versions", kind)]
    result = subprocess.run(
        command, check=False, input=yaml.safe_dump(dict(values)), text=True, capture_output=True
    )
    assert result.returncode == 0, result.stderr
    return [item for item in yaml.safe_load_all(result.stdout) if item]
