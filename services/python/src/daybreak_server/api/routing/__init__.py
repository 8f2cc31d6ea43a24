"""Serving pools: chooses a group for each request, holds requests while none is free, and passes answers on."""
