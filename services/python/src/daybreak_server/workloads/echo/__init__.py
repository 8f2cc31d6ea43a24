"""The echo workload: for tests and benchmarks; needs neither a model nor torch."""
