"""The scenarios: one promise each, with its figures. Importing this registers them in the order of the report."""

from __future__ import annotations

from verification.faults.scenarios import clients, failpoint_kills, leases, mixed_runs

__all__ = ["clients", "failpoint_kills", "leases", "mixed_runs"]
