"""Daybreak on one machine: ``up``, ``dev``, ``gateway --embedded``, the demos, and their supervisor of processes."""
