"""Engines run work on a group of ranks.

* ``gang`` runs tasks, with all ranks in lockstep.
* ``serving`` answers requests, and computes bulk files at the same time.
* ``sessions`` serves streaming sessions.
* ``common`` has the parts that these engines share.
"""
