"""Checks that every metric is declared, has a proper name, and has a place: a panel or an alert.

A metric's declaration is in ``observability/catalogue.py``, or in a catalogue that this module lists. The check fails

* for a metric that is made outside the modules in ``METERS``, because then no catalogue lists it;
* for a name that breaks Prometheus' conventions, or for a help text that is not a sentence;
* for a name that a dashboard, an alert or a page uses, but that no declaration has;
* for a metric without a place: no panel and no alert uses it, and ``why_unused`` does not say why;
* for a metric that is used although it has a ``why_unused``.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from generated_files import ROOT

from daybreak_server.observability import catalogue
from daybreak_server.ports.metrics import Metric, MetricType

SERVER = ROOT / "services/python/src/daybreak_server"
METERS = {
    SERVER / "observability/catalogue.py",
    SERVER / "observability/pool_catalogue.py",
    SERVER / "observability/router_catalogue.py",
    SERVER / "observability/request_catalogue.py",
    SERVER / "observability/model_catalogue.py",
    SERVER / "observability/batch_catalogue.py",
    SERVER / "observability/session_catalogue.py",
    SERVER / "observability/prometheus_meter.py",
    SERVER / "observability/samples.py",
    SERVER / "adapters/ray/ray_meter.py",
}
"""The only modules that may make metrics."""
MAKERS = re.compile(r"Metric|(Counter|Gauge|Histogram|Summary|Info|Enum)(MetricFamily)?")
LIBRARIES = ("prometheus_client", "ray.util.metrics", "daybreak_server.ports.metrics")
PLACES = ("deploy/helm/daybreak/files/dashboards/*.json", "deploy/helm/daybreak/files/alerts.yaml")
"""Where panels and alerts are."""
PAGES = ("docs/*.md", "README.md", "deploy/helm/daybreak/templates/NOTES.txt")
NAME = re.compile(r"\b(?:ray_)?(daybreak_[a-z0-9_]+)\b")
SUFFIXES = ("_bucket", "_sum", "_count")
UNITS = ("_seconds", "_bytes", "_ratio", "_total", "_steps", "_items")
NOT_METRICS = re.compile(r"daybreak_(server|settings|settle_\w+)\b|daybreak_\w+_$")


def naming(metrics: Iterable[Metric]) -> Iterator[str]:
    """What is wrong with declarations, by the rules of ``promtool check metrics`` and by our own rules."""
    names: set[str] = set()
    for metric in metrics:
        name = metric.name
        if name in names:
            yield f"{name} is declared twice"
        names.add(name)
        if not re.fullmatch(r"daybreak(_[a-z0-9]+)+", name):
            yield f"{name}: use daybreak_<noun>_<unit>, in lower case"
        if (metric.type is MetricType.COUNTER) != name.endswith("_total"):
            yield f"{name}: counters, and only counters, end in _total"
        if name.endswith(SUFFIXES) or re.search(r"_(ms|milliseconds|minutes|hours|kb|mb|percent)(_|$)", name):
            yield f"{name}: use base units, and no suffix that Prometheus adds itself"
        if metric.type is MetricType.HISTOGRAM and not name.endswith(UNITS):
            yield f"{name}: a histogram's name ends in its unit"
        if bool(metric.buckets) != (metric.type is MetricType.HISTOGRAM):
            yield f"{name}: a histogram, and nothing else, has buckets"
        if list(metric.buckets) != sorted(set(metric.buckets)):
            yield f"{name}: its buckets must rise"
        if not metric.help.endswith(".") or len(metric.help.split()) < 2:
            yield f"{name}: the help must be a sentence"
        for label in metric.labels:
            if label in {"task", "task_id", "id", "le", "job", "instance"} or not re.fullmatch(
                "[a-z_]+", label
            ):
                yield f"{name}: the label {label!r} is unbounded or taken"


def undeclared_makers(paths: Iterable[Path]) -> Iterator[str]:
    """Calls outside ``METERS`` that make a metric."""
    for path in paths:
        if path in METERS:
            continue
        tree = ast.parse(path.read_text(encoding="utf-8"))
        imported = {
            alias.asname or alias.name
            for node in ast.walk(tree)
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(LIBRARIES)
            for alias in node.names
        }
        for node in ast.walk(tree):
            if isinstance(node, ast.Call):
                name = ast.unparse(node.func).rpartition(".")[2]
                if MAKERS.fullmatch(name) and (name in imported or "metrics." in ast.unparse(node.func)):
                    yield f"{path}:{node.lineno} makes a metric: declare it in a catalogue of observability"


def names_in(text: str, declared: Mapping[str, Metric]) -> set[str]:
    """The metrics that a text names, without the suffixes of histograms."""
    found = set()
    for name in NAME.findall(text):
        if NOT_METRICS.match(name):
            continue
        base = next((name.removesuffix(suffix) for suffix in SUFFIXES if name.endswith(suffix)), name)
        found.add(base if base in declared and declared[base].type is MetricType.HISTOGRAM else name)
    return found


def without_place(used: set[str], metrics: Iterable[Metric]) -> Iterator[str]:
    """A problem for each metric that is unused and gives no reason, and for each that is used and gives one."""
    for metric in metrics:
        if metric.name not in used and not metric.why_unused:
            yield f"{metric.name} has no place: use it in a panel or an alert, or say in why_unused why not"
        if metric.name in used and metric.why_unused:
            yield f"{metric.name} is used: remove its why_unused"


def problems() -> Iterator[str]:
    """Everything that is wrong."""
    declared = {metric.name: metric for metric in catalogue.ALL}
    yield from naming(catalogue.ALL)
    yield from undeclared_makers(sorted(SERVER.rglob("*.py")))
    used: set[str] = set()
    for pattern in (*PLACES, *PAGES):
        for path in sorted(ROOT.glob(pattern)):
            found = names_in(path.read_text(encoding="utf-8"), declared)
            if pattern in PLACES:
                used |= found
            for name in sorted(found - set(declared)):
                yield f"{path.relative_to(ROOT)} names {name}, which is not declared"
    yield from without_place(used, catalogue.ALL)


def main() -> int:
    """Check. :returns: the exit status."""
    found = list(problems())
    for problem in found:
        print(problem, file=sys.stderr)
    if not found:
        print(f"metrics: {len(catalogue.ALL)} are declared, named and placed")
    return int(bool(found))


if __name__ == "__main__":
    sys.exit(main())
