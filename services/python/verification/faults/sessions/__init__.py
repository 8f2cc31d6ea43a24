"""Faults of streaming sessions: groups, gateways and the store die, freeze and restart while clients speak.

* ``speech`` makes audio, and computes the text of an undisturbed session with this audio.
* ``client`` speaks in real time, follows the rules of docs/wire-sessions.md, and writes the history.
* ``checker`` decides from the history which promises were broken.
* ``trial`` runs a cluster with one pool (of the simulated model), and the clients that speak to this pool.

The scenarios are in ``losses`` and ``clients``.
"""

from __future__ import annotations

from verification.faults.sessions import clients, losses

__all__ = ["clients", "losses"]
