"""The check of metrics finds each kind of mistake, and the declared metrics have none."""

from __future__ import annotations

import importlib.util
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest

from daybreak_server.observability import catalogue
from daybreak_server.ports.metrics import Exporter, Metric, MetricType

TOOLS = Path(__file__).parents[4] / "tools"
GOOD = Metric(
    name="daybreak_cats_total", type=MetricType.COUNTER, help="Cats seen.", exporters=(Exporter.GATEWAY,)
)


@pytest.fixture
def tool(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """``tools/metrics.py``."""
    monkeypatch.syspath_prepend(str(TOOLS))
    spec = importlib.util.spec_from_file_location("metrics_tool", TOOLS / "metrics.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "metrics_tool", module)
    spec.loader.exec_module(module)
    return module


def test_the_declared_metrics_keep_the_conventions(tool: ModuleType) -> None:
    assert list(tool.naming(catalogue.ALL)) == []
    assert list(tool.naming([GOOD])) == []


@pytest.mark.parametrize(
    "wrong",
    [
        {"name": "daybreak_cats"},
        {"name": "cats_total"},
        {"name": "daybreak_Cats_total"},
        {"name": "daybreak_cats_total", "type": MetricType.GAUGE},
        {"name": "daybreak_cats_milliseconds", "type": MetricType.GAUGE},
        {"name": "daybreak_cats_count", "type": MetricType.GAUGE},
        {"name": "daybreak_cats", "type": MetricType.HISTOGRAM, "buckets": (1.0,)},
        {"name": "daybreak_cats_seconds", "type": MetricType.HISTOGRAM},
        {"name": "daybreak_cats_seconds", "type": MetricType.HISTOGRAM, "buckets": (2.0, 1.0)},
        {"help": "Cats"},
        {"labels": ("task",)},
        {"labels": ("Pool",)},
    ],
    ids=str,
)
def test_a_name_help_label_or_bucket_that_breaks_the_conventions_is_found(
    tool: ModuleType, wrong: dict[str, object]
) -> None:
    assert list(tool.naming([replace(GOOD, **wrong)]))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "source",
    [
        "from prometheus_client import Counter\nCounter('daybreak_cats', 'Cats.')\n",
        "from prometheus_client.core import GaugeMetricFamily as Metric\nMetric('daybreak_cats', 'Cats.')\n",
        "from ray.util import metrics\nmetrics.Gauge('daybreak_cats')\n",
        "from ray.util.metrics import Histogram\nHistogram('daybreak_cats', boundaries=[1.0])\n",
        "from daybreak_server.ports.metrics import Metric\nMetric(name='daybreak_cats')\n",
    ],
)
def test_a_metric_past_the_catalogue_is_found(tool: ModuleType, tmp_path: Path, source: str) -> None:
    module = tmp_path / "module.py"
    module.write_text(source)
    assert len(list(tool.undeclared_makers([module]))) == 1


def test_a_counter_of_the_standard_library_is_no_metric(tool: ModuleType, tmp_path: Path) -> None:
    module = tmp_path / "module.py"
    module.write_text("from collections import Counter\nCounter('cats')\n")
    assert list(tool.undeclared_makers([module])) == []


def test_a_metric_needs_a_panel_an_alert_or_a_reason(tool: ModuleType) -> None:
    """A metric that a panel or an alert uses must not set ``why_unused``."""
    explained = replace(GOOD, why_unused="for debugging")
    assert len(list(tool.without_place(set(), [GOOD]))) == 1
    assert list(tool.without_place(set(), [explained])) == []
    assert list(tool.without_place({GOOD.name}, [GOOD])) == []
    assert len(list(tool.without_place({GOOD.name}, [explained]))) == 1


def test_the_suffix_of_a_histogram_is_no_part_of_the_name_of_its_metric(tool: ModuleType) -> None:
    """The tool also removes the prefix that Ray adds to a name."""
    declared = {metric.name: metric for metric in catalogue.ALL}
    query = (
        "histogram_quantile(0.9, rate(daybreak_queue_wait_seconds_bucket[5m])) "
        "+ ray_daybreak_rank_attempts_total + daybreak_nothing_total"
    )
    assert tool.names_in(query, declared) == {
        "daybreak_queue_wait_seconds",
        "daybreak_rank_attempts_total",
        "daybreak_nothing_total",
    }
