"""Workloads: their interface, the registry that finds them, and the workloads that ship with Daybreak."""
