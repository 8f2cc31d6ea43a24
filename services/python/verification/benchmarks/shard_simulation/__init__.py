"""Simulates a Redis Cluster, one shard at a time, under a load that no single machine can carry."""
