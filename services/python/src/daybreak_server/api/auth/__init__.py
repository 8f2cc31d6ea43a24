"""Authentication: the principal of a request."""
