"""Programs that verify Daybreak: a reference model, an exhaustive search, fault tests, planted bugs, and
benchmarks with their results."""
