"""Adapters to outside systems: one package for each system, the only one that imports its client library."""
