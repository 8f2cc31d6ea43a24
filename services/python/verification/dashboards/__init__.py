"""Draws pictures of the dashboards for the documentation, from a real run that Prometheus scraped."""
