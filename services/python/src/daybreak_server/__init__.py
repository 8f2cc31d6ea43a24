"""Daybreak's server: durable queue, gangs of ranks, every step streamed. See docs/00-overview.md."""
