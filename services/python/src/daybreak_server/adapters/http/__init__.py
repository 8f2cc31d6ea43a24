"""The HTTP client of the router. Only this package parses answers of groups."""
