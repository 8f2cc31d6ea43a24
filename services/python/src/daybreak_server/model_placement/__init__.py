"""Decides which worker runs which model: the pure plan, and the manager that keeps the plan up to date."""
