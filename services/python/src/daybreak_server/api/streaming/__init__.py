"""Subscription a task: one reader for each pool, many subscribers, SSE and WebSocket."""
