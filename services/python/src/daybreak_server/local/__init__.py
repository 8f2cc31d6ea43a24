"""Daybreak on one machine: ``up``, ``dev``, ``demo``, and the supervisor that keeps their processes running."""
