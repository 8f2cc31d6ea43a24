"""The settings: one typed tree, and the one place that reads the environment."""
