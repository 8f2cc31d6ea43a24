"""Workloads: the interface, how they are found, and those that ship with Daybreak."""
