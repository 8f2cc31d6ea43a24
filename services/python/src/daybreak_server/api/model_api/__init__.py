"""Routes of external workers and the models that they serve."""
