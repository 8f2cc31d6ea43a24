"""How much batching gains when many callers embed one text at a time."""
