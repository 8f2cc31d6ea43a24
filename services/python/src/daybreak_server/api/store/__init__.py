"""The API's side of the task store: from a validated request to the store, bounded and batched."""
