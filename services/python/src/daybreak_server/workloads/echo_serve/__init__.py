"""The workload ``echo-serve``, for tests and benchmarks of pools that answer requests. It needs no model or torch."""
