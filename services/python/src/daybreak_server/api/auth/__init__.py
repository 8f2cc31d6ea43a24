"""Who is calling: the principal of a request."""
