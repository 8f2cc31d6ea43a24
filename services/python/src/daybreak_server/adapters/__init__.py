"""Adapters to outside systems. Each has one package, and only that package imports its client library."""
