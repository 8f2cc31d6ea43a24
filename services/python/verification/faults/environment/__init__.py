"""Faults of the environment: network, disk, memory, clocks, S3.

The tools:

* ``proxy``       a TCP proxy that cuts, stalls and slows connections, and drops requests and responses; ``toxi``
  runs toxiproxy
* ``disk``        a file system that can be made full and, in a crash, loses what was not fsynced; it works by FUSE
  (``fuse``) or by a preloaded library (``forget.c``)
* ``s3``          an S3 server behind an HTTP proxy; the proxy answers 500 or 503, slows requests, cuts uploads and
  loses responses
* ``skew``        steps the wall clock of single processes while they run, by a preloaded library (``skew.c``)
* ``traffic``     clients that submit tasks and remember what was accepted
* ``invariants``  checks that the keys in a store are consistent

``power``, ``full``, ``network_faults``, ``clocks`` and ``files`` contain the scenarios. Each scenario tests one
promise or measures one loss, and saves its figures. ``preload`` compiles the libraries.
"""

from __future__ import annotations

from verification.faults.environment import clocks, files, full, network_faults, power

__all__ = ["clocks", "files", "full", "network_faults", "power"]
