"""Compares a submit over HTTP with a request that does nothing, on the same class of server."""
