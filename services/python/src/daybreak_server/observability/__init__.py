"""Metrics, logs, traces and alerts."""
