"""The task store on Redis or Valkey. Every change of state is one Lua script."""
