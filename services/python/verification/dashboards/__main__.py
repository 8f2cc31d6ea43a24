"""``python -m verification.dashboards``: writes docs/dashboard-*.svg from a run that Prometheus watches.

The run is that of the tests (``testkit.observed``). Each picture shows the panels of a dashboard that its definition
marks with ``pictured``, and is drawn from the panels' own queries.
"""

from __future__ import annotations

import math
import re
import sys
import tempfile
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).parents[4]
sys.path.insert(0, str(REPOSITORY / "tools"))

from dashboards import ALL  # noqa: E402 - a tool, found by the path above
from dashboards.model import Dashboard, Kind, Panel, Query, Unit  # noqa: E402

from testkit.observed import ObservedRun, observed_run  # noqa: E402
from testkit.prometheus import missing_programs  # noqa: E402
from verification.dashboards.picture import Plot, Series, draw  # noqa: E402

_UNITS = {Unit.SECONDS: "s", Unit.BYTES: "bytes", Unit.PER_SECOND: "per s", Unit.GPUS: "GPUs"}
_UNITS |= {Unit.GPU_SECONDS: "GPU·s", Unit.RATIO: "share"}


def picture(dashboard: Dashboard, run: ObservedRun) -> str:
    """The picture of a dashboard."""
    plots = [_plot(panel, run) for panel in dashboard.panels if panel.pictured]
    return draw(dashboard.title, [plot for plot in plots if plot.series])


def _plot(panel: Panel, run: ObservedRun) -> Plot:
    unit = _UNITS.get(panel.unit)
    return Plot(
        title=panel.title + (f" ({unit})" if unit else ""),
        stacked=panel.kind is Kind.AREAS,
        bars=panel.kind in {Kind.BARS, Kind.NUMBER},
        series=[series for query in panel.queries for series in _series(query, run)],
    )


def _series(query: Query, run: ObservedRun) -> list[Series]:
    found = run.watch.over(query.filled(rate_interval="15s", range_="10m"))
    return [Series(name=_legend(query.legend, each["metric"]), points=_points(each, run)) for each in found]


def _points(series: dict[str, Any], run: ObservedRun) -> list[tuple[float, float]]:
    points = [(float(at) - run.watch.started, float(value)) for at, value in series["values"]]
    return [(at, value) for at, value in points if math.isfinite(value)]


def _legend(template: str, labels: dict[str, str]) -> str:
    return re.sub(r"\{\{(\w+)\}\}", lambda match: labels.get(match[1], ""), template).strip()


def main() -> int:
    """Run and draw. :returns: the exit status."""
    missing = missing_programs()
    if missing:
        print(f"install {', '.join(missing)} first; on Debian: apt-get install {' '.join(missing)}")
        return 1
    with tempfile.TemporaryDirectory() as folder, observed_run(Path(folder)) as run:
        run.play()
        for dashboard in ALL:
            path = REPOSITORY / "docs" / f"dashboard-{dashboard.uid.removeprefix('daybreak-')}.svg"
            if any(panel.pictured for panel in dashboard.panels):
                path.write_text(picture(dashboard, run), encoding="utf-8")
                print(f"wrote {path.relative_to(REPOSITORY)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
