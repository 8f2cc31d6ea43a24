"""The Grafana dashboards: what each panel asks Prometheus, and what the panel means.

``model`` has the types. One module per dashboard has its panels; some rows of the dashboard *Serving* have modules of
their own. ``grafana`` turns the dashboards into Grafana's JSON. The tests also take the queries from here, and send
them to a Prometheus that has scraped a real run.
"""

from __future__ import annotations

from dashboards.api import API
from dashboards.cost import COST
from dashboards.model import Dashboard
from dashboards.overview import OVERVIEW
from dashboards.pool import POOL
from dashboards.ray import RAY
from dashboards.serving import SERVING
from dashboards.sessions import SESSIONS
from dashboards.wake import WAKE

ALL: tuple[Dashboard, ...] = (OVERVIEW, POOL, SERVING, SESSIONS, WAKE, API, COST, RAY)
