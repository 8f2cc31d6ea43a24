"""The registry of workers and models on Redis: `store` implements the port, and `registry.lua` does the work."""
