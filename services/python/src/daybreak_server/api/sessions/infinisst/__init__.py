"""The HTTP API of InfiniSST: of its serving system, and of its scheduler."""
