"""OpenAI's realtime API and vLLM's, over one WebSocket route."""
