"""The reference model: the behaviour of the Lua scripts in plain Python, with time passed in."""
