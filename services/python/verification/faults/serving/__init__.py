"""Faults of serving pools: groups, gateways and the store restart, die and freeze while clients send requests.

* ``workload`` answers each request in the way that the request describes (``wish.py``). It logs the beginning and the
  end of each run of a request in a file that survives the process.
* ``http_client`` is a client that records when an answer began, and whether the answer is complete.
* ``load`` has the clients, which follow the rules of docs/08-serving.md and write the history.
* ``observations`` sorts a history by request. From the result, ``checker`` decides which promises were broken.
* ``trial`` is a cluster with a serving pool and clients.

``restarts`` and ``pressure`` have the scenarios. Each scenario tests promises and returns its figures.
"""

from __future__ import annotations

from verification.faults.serving import pressure, restarts

__all__ = ["pressure", "restarts"]
