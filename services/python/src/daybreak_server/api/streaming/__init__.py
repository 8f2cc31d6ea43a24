"""Streams of events: one reader of the event log for each pool, many subscribers, over SSE and WebSocket."""
