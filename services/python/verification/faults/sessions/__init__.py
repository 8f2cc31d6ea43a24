"""Faults of streaming sessions: groups, gateways and the store die, freeze and restart while clients speak.

* ``speech``   audio, and the text that an undisturbed session makes of it
* ``client``   speaks in real time, follows the rules of docs/wire-sessions.md, and writes the history
* ``checker``  decides from the history which promises were broken
* ``trial``    a cluster with a pool of simulated speech, and clients

``losses`` and ``clients`` are the scenarios.
"""

from __future__ import annotations

from verification.faults.sessions import clients, losses

__all__ = ["clients", "losses"]
