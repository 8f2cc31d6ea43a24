"""The workload ``rerank``: scores how well texts answer a query, for all callers of a group in shared batches."""
