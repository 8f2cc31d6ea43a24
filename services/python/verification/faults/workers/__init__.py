"""Faults of models on workers: workers, engines, the manager, gateways and the store die or restart under load.

* ``fleet``      starts, kills and replaces the workers of a cluster, and looks for orphans
* ``scenarios``  the scenarios, each of which tests one promise and saves its figures

The engine is :mod:`verification.faults.workers_engine`, a model server that gives each request the answer
that the request asks for (``verification.faults.wish``). The engine logs in a file when the work on a request begins
and ends. The clients, the history and the checker are those of :mod:`verification.faults.serving`.
"""

from __future__ import annotations

from verification.faults.workers import scenarios

__all__ = ["scenarios"]
