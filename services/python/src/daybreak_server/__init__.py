"""Daybreak's server: a durable queue, groups of ranks, and a stream of every step. See docs/00-overview.md."""
