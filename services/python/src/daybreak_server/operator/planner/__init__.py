"""Decides what to do for a pool: pure functions from what was observed to actions."""
