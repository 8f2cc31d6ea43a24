"""The store of tasks on Redis or Valkey: every change of state is one Lua script."""
