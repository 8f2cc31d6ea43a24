"""The HTTP client of gateways and workers. No other package parses the answers of groups, workers and engines."""
