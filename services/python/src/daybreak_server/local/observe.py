"""Prometheus beside ``daybreakd up``: scrapes this instance and evaluates Daybreak's alerts (``up --observe``).

It runs the ``prometheus`` that is installed on the machine, on a free port of the loopback address, with its data in
the instance's folder. Its rules are those rules of the chart that need only the gateway and Ray. When Ray starts, it
chooses the port of its metrics. :mod:`~daybreak_server.local.local_ray` writes the address with this port to a file,
which Prometheus watches.

A subfolder has provisioning files for Grafana. A Grafana that starts with them has this Prometheus as its data source
and, if Daybreak runs from its source tree, the dashboards.
"""

from __future__ import annotations

import json
import shutil
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from daybreak_server.local.free_ports import sticky_port
from daybreak_server.local.instance import Instance, InstanceError, write_atomically
from daybreak_server.local.supervisor import ProcessSpec
from daybreak_server.observability.alerts import Needs
from daybreak_server.observability.prometheus_rules import Place, rule_groups

HOST = "127.0.0.1"
NAMESPACE = "local"
"""The value of the label ``namespace``, which on Kubernetes is the pod's namespace."""
RAY_TARGETS = "ray-targets.json"
_HERE = f'namespace="{NAMESPACE}"'
_LOCAL = frozenset({Needs.GATEWAY, Needs.RAY})
_INSTALL = (
    "prometheus is not on PATH, but --observe needs it. On Debian and Ubuntu: apt-get install prometheus (its service "
    "is not needed: systemctl disable --now prometheus). Elsewhere: https://prometheus.io/download"
)
GRAFANA = "grafana/grafana:11.6.0"
"""The version for which the dashboards are made; see ``grafana-foundation-sdk`` in requirements-dev.in."""
_CHECKOUT = Path(__file__).parents[5]


@dataclass(frozen=True, kw_only=True)
class Observer:
    """A Prometheus that is about to run."""

    process: ProcessSpec
    url: str
    folder: Path

    def lines(self) -> tuple[str, ...]:
        """What to print once it runs: its address, and how a Grafana uses it."""
        dashboards = _dashboards()
        mounts = f"-v {self.folder / 'grafana'}:/etc/grafana/provisioning:ro"
        mounts += f" -v {dashboards}:{dashboards}:ro" if dashboards else ""
        return (
            f"metrics and alerts: {self.url}",
            f"Grafana with the dashboards (Docker on Linux): docker run --rm --network host {mounts} {GRAFANA}",
            f"a Grafana that runs already: add {self.url} as a Prometheus data source, and import the files of "
            f"{dashboards or 'deploy/helm/daybreak/files/dashboards in the source tree'}",
        )


def ray_targets(instance: Instance) -> Path:
    """The file with the addresses at which Ray exports metrics. The process that runs Ray writes it."""
    return instance.folder / "prometheus" / RAY_TARGETS


def observer(instance: Instance, *, gateway: str, after: tuple[str, ...] = ()) -> Observer:
    """Write the configuration. ``gateway``: its URL. :raises InstanceError: when Prometheus is not installed."""
    program = shutil.which("prometheus")
    if program is None:
        raise InstanceError(_INSTALL)
    folder = (instance.folder / "prometheus").resolve()
    folder.mkdir(exist_ok=True)
    url = f"http://{HOST}:{sticky_port(folder / 'port', host=HOST)}"
    write_atomically(folder / "rules.json", json.dumps({"groups": rule_groups(Place(here=_HERE), _LOCAL)}))
    write_atomically(
        folder / "prometheus.json",
        json.dumps(
            scrape_config(gateway=gateway, ray=folder / RAY_TARGETS, rules=folder / "rules.json"), indent=1
        ),
    )
    _provision_grafana(folder / "grafana", url)
    return Observer(
        url=url,
        folder=folder,
        process=ProcessSpec(
            name="prometheus",
            command=(
                program,
                f"--config.file={folder / 'prometheus.json'}",
                f"--storage.tsdb.path={folder / 'data'}",
                "--storage.tsdb.retention.time=8d",
                f"--web.listen-address={url.removeprefix('http://')}",
            ),
            env=instance.environment("prometheus"),
            log=instance.logs / "prometheus.log",
            ready=lambda: _answers(f"{url}/-/ready"),
            ready_s=120,  # replaying the write-ahead log of a long run takes a while
            after=after,
        ),
    )


def scrape_config(
    *,
    gateway: str,
    ray: Path,
    rules: Path,
    interval: str = "5s",
    ray_interval: str = "5s",
    alertmanager: str = "",
) -> dict[str, Any]:
    """Prometheus' configuration. Metrics get the same names and labels as from the monitors of the chart.

    :param gateway: the gateway's URL.
    :param ray: the file with Ray's targets.
    :param ray_interval: the interval at which these targets are scraped. A scrape that takes longer fails.
    :param alertmanager: ``host:port`` of an Alertmanager; empty: none.
    """
    labels = {"namespace": NAMESPACE, "job": "daybreak"}
    config: dict[str, Any] = {
        "global": {"scrape_interval": interval, "evaluation_interval": interval},
        "rule_files": [str(rules)],
        "scrape_configs": [
            {
                "job_name": "daybreak",
                "static_configs": [{"targets": [gateway.partition("://")[2]], "labels": labels}],
            },
            {
                "job_name": "daybreak-ray",
                "honor_labels": True,
                "scrape_interval": ray_interval,
                "file_sd_configs": [{"files": [str(ray)], "refresh_interval": "5s"}],
                "metric_relabel_configs": [
                    {"source_labels": ["__name__"], "regex": "ray_(daybreak_.+)", "target_label": "__name__"}
                ],
            },
        ],
    }
    if alertmanager:
        config["alerting"] = {"alertmanagers": [{"static_configs": [{"targets": [alertmanager]}]}]}
    return config


def write_ray_targets(path: Path, addresses: list[str]) -> None:
    """Tell Prometheus where Ray exports metrics: ``host:port`` of each node."""
    write_atomically(
        path, json.dumps([{"targets": addresses, "labels": {"namespace": NAMESPACE, "job": "daybreak"}}])
    )


def _provision_grafana(folder: Path, url: str) -> None:
    """Grafana's provisioning: this Prometheus as the default data source, and the dashboards of the source tree."""
    source = {"name": "Daybreak", "type": "prometheus", "access": "proxy", "url": url, "isDefault": True}
    files: dict[str, dict[str, Any]] = {"datasources": {"apiVersion": 1, "datasources": [source]}}
    dashboards = _dashboards()
    if dashboards is not None:
        provider = {"name": "Daybreak", "folder": "Daybreak", "options": {"path": str(dashboards)}}
        files["dashboards"] = {"apiVersion": 1, "providers": [provider]}
    for name, content in files.items():
        (folder / name).mkdir(parents=True, exist_ok=True)
        (folder / name / "daybreak.yaml").write_text(json.dumps(content, indent=1), encoding="utf-8")


def _dashboards() -> Path | None:
    """The dashboards' folder, if this is a source tree."""
    folder = _CHECKOUT / "deploy" / "helm" / "daybreak" / "files" / "dashboards"
    return folder if folder.is_dir() else None


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2) as response:  # noqa: S310 - our own address
            return int(response.status) == 200
    except (OSError, urllib.error.URLError):
        return False
