"""The reference model: what the Lua scripts do, in plain Python, with time passed in."""
