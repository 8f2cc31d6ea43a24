"""The settings: one typed tree, and the only module that reads the environment."""
