"""What the workloads ``embed`` and ``rerank`` share: options, tokens, checks of requests, and batches."""
