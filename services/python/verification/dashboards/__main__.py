"""``python -m verification.dashboards``: writes docs/dashboard-*.svg from a run that Prometheus watches.

The tests use the same run (``testkit.observed``). Each picture shows one dashboard: the panels whose definition
says ``pictured``. The panels' own queries provide the data.
"""

from __future__ import annotations

import math
import re
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).parents[4]
sys.path.insert(0, str(REPOSITORY / "tools"))

from dashboards import ALL  # noqa: E402 - a tool, found by the path above
from dashboards.model import Dashboard, Kind, Panel, Query, Unit  # noqa: E402

from testkit.observed import ObservedRun, observed_run  # noqa: E402
from testkit.prometheus import missing_programs  # noqa: E402
from verification.dashboards.picture import draw  # noqa: E402
from verification.dashboards.plots import SHARE, Plot, Series, short  # noqa: E402

_UNITS = {Unit.SECONDS: "s", Unit.BYTES: "bytes", Unit.PER_SECOND: "per s", Unit.GPUS: "GPUs"}
_UNITS |= {Unit.GPU_HOURS: "GPU·h", Unit.RATIO: SHARE}


def picture(dashboard: Dashboard, run: ObservedRun) -> str:
    """The picture of a dashboard."""
    plots = [_plot(panel, run) for panel in dashboard.panels if panel.pictured]
    return draw(dashboard.title, [plot for plot in plots if plot.series or plot.table], run.marks)


def _plot(panel: Panel, run: ObservedRun) -> Plot:
    unit = _UNITS.get(panel.unit, "")
    in_title = unit and panel.kind in {Kind.LINES, Kind.AREAS, Kind.TABLE}
    series = [series for query in panel.queries for series in _series(query, panel, run)]
    return Plot(
        title=panel.title + (f" ({unit})" if in_title else ""),
        kind=panel.kind,
        columns=panel.width,
        unit=unit,
        until=time.time() - run.watch.started,
        series=[] if panel.kind is Kind.TABLE else sorted(series, key=lambda each: _rank(each.name, panel)),
        table=_table(panel, run) if panel.kind is Kind.TABLE else (),
        note=_note(panel),
    )


def _note(panel: Panel) -> str:
    """The line below a panel: what its reader must know, or which of its series need Kubernetes."""
    if panel.runbook_of_row:
        return (
            "All alerts that fired in this run. Their windows are 300 times shorter than in production, so even a "
            "group that takes a few seconds to start sets off alerts."
        )
    missing = [re.sub(r"\{\{\w+\}\}", "", query.legend).strip() for query in panel.queries if query.no_data]
    return f"needs Kubernetes: {', '.join(missing)}" if missing else panel.pictured_note


def _series(query: Query, panel: Panel, run: ObservedRun) -> list[Series]:
    found = run.watch.over(_filled(query))
    named = [(_legend(query.legend, each["metric"]), _points(each, run)) for each in found]
    return [Series(name=name, points=points, color=_color(name, panel)) for name, points in named if points]


def _filled(query: Query) -> str:
    return query.filled(rate_interval="15s", range_="10m")


def _rank(name: str, panel: Panel) -> int:
    """The sort key of a series: its place among the panel's colours. Series without a colour come last."""
    return next((rank for rank, start in enumerate(panel.colors) if re.match(start, name)), len(panel.colors))


def _color(name: str, panel: Panel) -> str:
    return next((color for start, color in panel.colors.items() if re.match(start, name)), "")


def _table(panel: Panel, run: ObservedRun) -> list[dict[str, str]]:
    """The rows of a table. Its columns are the labels and, if the panel has several queries, a number for each."""
    rows: dict[str, dict[str, str]] = {}
    for query in panel.queries:
        for each in run.watch.over(_filled(query)):
            labels = {name: value for name, value in each["metric"].items() if name != "runbook"}
            row = rows.setdefault(str(sorted(labels.items())), labels)
            if len(panel.queries) > 1:
                row[query.legend] = short(_points(each, run)[-1][1])
    columns = list(dict.fromkeys(name for row in rows.values() for name in row))
    return [{name: row.get(name, "") for name in columns} for row in rows.values()]


def _points(series: dict[str, Any], run: ObservedRun) -> list[tuple[float, float]]:
    points = [(float(at) - run.watch.started, float(value)) for at, value in series["values"]]
    return [(at, value) for at, value in points if math.isfinite(value)]


def _legend(template: str, labels: dict[str, str]) -> str:
    return " ".join(re.sub(r"\{\{(\w+)\}\}", lambda match: labels.get(match[1], ""), template).split())


def main() -> int:
    """Run and draw. :returns: the exit status."""
    missing = missing_programs()
    if missing:
        print(f"install {', '.join(missing)} first; on Debian: apt-get install {' '.join(missing)}")
        return 1
    with tempfile.TemporaryDirectory() as folder, observed_run(Path(folder)) as run:
        run.play(at_once=False)
        for dashboard in ALL:
            path = REPOSITORY / "docs" / f"dashboard-{dashboard.uid.removeprefix('daybreak-')}.svg"
            if any(panel.pictured for panel in dashboard.panels):
                path.write_text(picture(dashboard, run), encoding="utf-8")
                print(f"wrote {path.relative_to(REPOSITORY)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
