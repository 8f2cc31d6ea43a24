"""Programs that verify Daybreak: reference model, exhaustive search, fault tests, planted bugs, benchmarks
and their results."""
