"""The echo workload, for tests and benchmarks. It needs neither a model nor torch."""
