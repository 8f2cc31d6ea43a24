"""Daybreak on one machine: ``up``, ``dev``, ``gateway --embedded``, the demos, and the supervisor of processes."""
