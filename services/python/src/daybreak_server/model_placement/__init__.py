"""Decides which worker runs which model: the pure plan, and the process that keeps it up to date."""
