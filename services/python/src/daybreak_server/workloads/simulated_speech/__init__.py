"""The workload ``simulated-speech``: streaming sessions without a model, for development and tests. No torch."""
