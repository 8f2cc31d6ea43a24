"""Streaming sessions for clients: Daybreak's own routes, and those of OpenAI, vLLM and InfiniSST."""
