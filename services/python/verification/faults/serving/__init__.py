"""Faults of serving pools: groups, gateways and the store restart, die and freeze while clients send requests.

* ``workload``     answers wishes, and logs each run in a file that survives the process
* ``http_client``  a client that sees when the first byte came, and whether the answer is complete
* ``load``         the clients: they follow the rules of docs/08-serving.md, and write the history
* ``observations`` a history, sorted by request; ``checker`` decides from it which promises were broken
* ``trial``        a cluster with a serving pool and clients

``restarts`` and ``pressure`` are the scenarios: one promise each, with its figures.
"""

from __future__ import annotations

from verification.faults.serving import pressure, restarts

__all__ = ["pressure", "restarts"]
