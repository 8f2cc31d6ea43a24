"""Faults of what surrounds the parts: network, disk, memory, clocks, S3.

* ``proxy``      a TCP proxy that cuts, holds, swallows, slows, and loses replies; ``toxiproxy`` does so by
  another's program
* ``disk``       a file system that forgets what was not fsynced, and that can be full: by FUSE, or by a library
  that is loaded before libc
* ``s3``         an HTTP proxy before an S3 server: 500, 503, slow, cut in the middle, reply lost
* ``skew``       the wall clock of single processes, stepped while they run, by a library before libc
* ``traffic``, ``whole``  clients that submit and remember; whether what a store holds fits together
* ``power``, ``full``, ``network``, ``clocks``, ``files``  the promises, each with its figures
"""

from __future__ import annotations

from verification.faults.environment import clocks, files, full, network, power

__all__ = ["clocks", "files", "full", "network", "power"]
