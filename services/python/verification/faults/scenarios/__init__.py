"""One promise each, with its figures. Importing this registers them; the order is the order of the report."""

from __future__ import annotations

from verification.faults.scenarios import clients, leases, points, runs

__all__ = ["clients", "leases", "points", "runs"]
