"""Each scenario tests one promise and returns its figures. Importing this package registers the scenarios, in the order
of the report."""

from __future__ import annotations

from verification.faults.scenarios import clients, failpoint_kills, leases, mixed_runs

__all__ = ["clients", "failpoint_kills", "leases", "mixed_runs"]
