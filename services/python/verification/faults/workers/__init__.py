"""Faults of models on workers: workers, engines, the manager, gateways and the store die or restart under load.

* ``fleet``      starts, kills and replaces the workers of a cluster, and looks for orphans
* ``scenarios``  each tests one promise and saves its figures

The engine is :mod:`verification.faults.workers_engine`, a model server that answers wishes
(``verification.faults.wish``) and logs each run in a file. The clients, their history and its checker are those of
:mod:`verification.faults.serving`.
"""

from __future__ import annotations

from verification.faults.workers import scenarios

__all__ = ["scenarios"]
