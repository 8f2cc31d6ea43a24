"""From a request to the task store: the pools, validation, and batched and bounded calls."""
