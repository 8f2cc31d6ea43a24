"""HTTP, SSE and WebSocket: the one FastAPI app that gateway pods and ``APIEntrypoint`` serve."""
