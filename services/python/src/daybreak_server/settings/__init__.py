"""The settings: one typed tree. This is the only package that reads Daybreak's own environment variables."""
