"""Runs the planner: watches the cluster, reconciles each pool in a loop of its own, and executes planned actions."""
