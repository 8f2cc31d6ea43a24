"""Faults of models on workers: workers, engines, the manager, gateways and the store die or restart under load.

* ``engine``     a model server that answers wishes (``verification.faults.wish``), and logs each run in a file
* ``fleet``      the workers of a cluster: starts, kills and replaces them, and looks for orphans
* ``scenarios``  one promise each, with its figures

The clients, their history and its checker are those of :mod:`verification.faults.serving`.
"""

from __future__ import annotations

from verification.faults.workers import scenarios

__all__ = ["scenarios"]
