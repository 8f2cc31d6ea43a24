"""Measures what metrics, traces and logs cost: submits and steps with and without them, in one run."""
