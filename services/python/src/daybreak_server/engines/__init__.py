"""Engines run work on a group of ranks: ``rank`` has the shared parts, ``gang`` runs jobs in lockstep."""
