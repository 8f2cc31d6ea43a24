"""Runs the planner: watches, one reconcile loop for each pool, execution of its actions."""
