"""A dashboard as data: rows of panels, and for each panel its queries in PromQL.

In the expressions, ``HERE`` stands for the matcher of the namespace, and ``POOL`` for those of the namespace and the
pool. Grafana replaces its variables (``$namespace``, ``$pool``, ``$tenant``, ``$__rate_interval``) when it sends a
query; :meth:`Query.filled` does the same for a query that Prometheus gets without Grafana.

A dashboard shows one namespace, that is, one Helm release. Every gateway exports the same values from Redis. So a query
first reduces the copies of such a value to one, with ``max by (…)``, or with our function ``grown`` for the growth of a
total in a window. Then it sums over pools or states. Values that each process counts for itself are added up with
``sum by (…)``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from daybreak_server.observability.promql import scoped

NAMESPACE_MATCHER = 'namespace=~"$namespace"'
POOL_MATCHER = f'{NAMESPACE_MATCHER},pool=~"$pool"'
SCRAPE_INTERVAL = "30s"
"""How often Prometheus scrapes. In the chart, ``monitoring.interval`` replaces it. Grafana sets ``$__rate_interval`` to
at least four times this interval, so that a missed scrape leaves no gap."""
KUBERNETES = "needs Kubernetes"
GPU = "needs a GPU"


GOOD, FINE, BUSY, LATE, BAD, NONE = "#16a34a", "#2563eb", "#9333ea", "#f59e0b", "#dc2626", "#9ca3af"
TASK_STATES = {"running": GOOD, "queued": LATE, "delayed": NONE}
ENDS = {"accepted": FINE, "succeeded": GOOD, "failed": BAD, "cancelled": NONE, "expired": LATE}
GROUP_STATES = {
    "busy": GOOD,
    "idle": NONE,
    "loading": "#fcd34d",
    "starting": LATE,
    "draining": BUSY,
    "lost": BAD,
}
GPU_TIME = {
    "used": GOOD,
    "idle": NONE,
    "wasted: cold_start": "#fcd34d",
    "wasted: retry": "#c2410c",
    "wasted: failure": BAD,
    "wasted": LATE,
}
PRIORITIES = {"high": BUSY, "normal": FINE, "low": NONE, "other": LATE}
WAITS = {f"{name} p95": color for name, color in PRIORITIES.items()}
WAITS |= {"high p50": "#d8b4fe", "normal p50": "#93c5fd", "low p50": "#d1d5db"}
"""The colours of series. Each key is the beginning of a series' name. The same state has the same colour on all
dashboards and pictures."""


class Kind(StrEnum):
    """How a panel draws its queries."""

    LINES = "lines"
    AREAS = "areas"
    """Stacked: the height is the sum."""
    NUMBER = "number"
    BARS = "bars"
    TABLE = "table"
    """A row for each set of labels, and a column for each query."""
    TIMELINE = "timeline"
    """When each series exists."""


class Unit(StrEnum):
    """Grafana's names of units."""

    COUNT = "short"
    SECONDS = "s"
    RATIO = "percentunit"
    PERCENT = "percent"
    BYTES = "bytes"
    BYTES_PER_SECOND = "Bps"
    PER_SECOND = "ops"
    EVENTS_PER_SECOND = "cps"
    GPUS = "suffix: GPUs"
    GPU_HOURS = "suffix: GPU·h"
    YES_NO = "bool_yes_no"


@dataclass(frozen=True, kw_only=True)
class Query:
    """One query of a panel."""

    expression: str
    legend: str = ""
    """Grafana's format of the series' name, such as ``{{pool}}``."""
    no_data: str = ""
    """Why a run on one machine gives no data for this query. Empty: the run must give data."""

    @property
    def grafana(self) -> str:
        """The expression for Grafana."""
        return scoped(self.expression, here=NAMESPACE_MATCHER, pool=POOL_MATCHER)

    def filled(self, *, rate_interval: str, range_: str) -> str:
        """The expression for Prometheus, for all namespaces, pools and tenants."""
        text = self.grafana.replace("$__rate_interval", rate_interval).replace("$__range", range_)
        for variable in ("$namespace", "$pool", "$tenant"):
            text = text.replace(variable, ".*")
        return text


@dataclass(frozen=True, kw_only=True)
class Panel:
    """A panel: what it shows, what *bad* looks like, and where to look next."""

    title: str
    shows: str
    bad: str
    unit: Unit
    queries: tuple[Query, ...]
    kind: Kind = Kind.LINES
    colors: Mapping[str, str] = field(default_factory=dict)
    """The colours of series. Each key is the beginning of a series' name."""
    no_value: str = ""
    """What a panel of kind ``NUMBER`` shows if there is no data."""
    runbook_of_row: bool = False
    """Whether each row of a table links to the runbook that its label ``runbook`` names."""
    runbook: str = ""
    """The anchor of an entry in docs/runbooks.md."""
    deeper: str = ""
    """The uid of a dashboard that explains the panel further. Default: the first of :attr:`Dashboard.deeper`."""
    warn: float | None = None
    """The value from which the panel is orange."""
    alarm: float | None = None
    """The value from which the panel is red. If ``alarm`` is below ``warn``, low values are bad."""
    width: int = 8
    """The panel's width in columns; a dashboard has 24."""
    height: int = 7
    pictured: bool = False
    """Whether the pictures in the documentation show the panel."""
    pictured_note: str = ""
    """A note that the pictures show below the panel."""

    @property
    def description(self) -> str:
        """The text that Grafana shows at the panel's info icon (*i*)."""
        return f"{self.shows}\n\n**Bad:** {self.bad}"


@dataclass(frozen=True, kw_only=True)
class Row:
    """Panels under a heading."""

    title: str
    panels: tuple[Panel, ...]


@dataclass(frozen=True, kw_only=True)
class Dashboard:
    """A dashboard; ``deeper`` are the uids of the dashboards that explain it further."""

    uid: str
    title: str
    description: str
    rows: tuple[Row, ...]
    deeper: tuple[str, ...] = field(default=())
    from_: str = "now-6h"
    by_tenant: bool = False

    @property
    def panels(self) -> Iterator[Panel]:
        """All panels, in order."""
        for row in self.rows:
            yield from row.panels


def query(expression: str, legend: str = "", *, no_data: str = "") -> Query:
    """A query. In its expression, several spaces or line breaks in a row become one space."""
    return Query(expression=" ".join(expression.split()), legend=legend, no_data=no_data)


def quantiles(
    histogram: str, by: str, *, stored: bool = False, no_data: str = "", at: tuple[float, ...] = (0.5, 0.95)
) -> tuple[Query, ...]:
    """Quantiles of a histogram for each value of a label. The default is the median and the 95th percentile.

    :param histogram: its name with a selector, such as ``daybreak_x_seconds{POOL}``.
    :param by: the label, or several of them with commas.
    :param stored: whether the histogram is stored in Redis, so that every gateway exports the same values.
    """
    name, brace, selector = histogram.partition("{")
    rate = f"rate({name}_bucket{brace}{selector}[$__rate_interval])"
    if stored:
        rate = (
            f"max by (namespace, pool, {by}, le) ({rate})"
            if by != "pool"
            else (f"max by (namespace, pool, le) ({rate})")
        )
    return tuple(
        query(
            f"histogram_quantile({quantile}, sum by ({by}, le) ({rate}))",
            " ".join(f"{{{{{label}}}}}" for label in by.split(", ")) + f" p{round(quantile * 100)}",
            no_data=no_data,
        )
        for quantile in at
    )
