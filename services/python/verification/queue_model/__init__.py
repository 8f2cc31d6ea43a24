"""The reference model: it does in plain Python what the Lua scripts do. Its caller sets the time."""
