"""The workload ``embed``: turns texts into vectors, for all callers of a group in shared batches."""
