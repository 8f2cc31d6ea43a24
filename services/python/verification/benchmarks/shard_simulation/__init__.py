"""Simulates what no single machine can run: pools as shards of a Redis Cluster."""
