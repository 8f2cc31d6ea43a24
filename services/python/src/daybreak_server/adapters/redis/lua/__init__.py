"""The Lua scripts, and the Python modules that encode their arguments and decode their replies."""
