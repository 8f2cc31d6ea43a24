"""Past one machine: pools as shards of a Redis Cluster, on paper and by simulated events."""
