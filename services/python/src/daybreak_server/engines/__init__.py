"""Engines run work on a group of ranks.

* ``tasks`` runs tasks, with all ranks in lockstep.
* ``serving`` answers requests. Its groups may also run tasks about bulk files, and use ``tasks`` for these.
* ``sessions`` serves streaming sessions.

All three stand on two rooms:

* ``ranks`` is what makes a group of several processes: they meet, agree at each step, and end together.
* ``common`` has the parts of one process: leases, heartbeat, watchdog, files, progress.
"""
