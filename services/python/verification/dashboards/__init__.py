"""Pictures of the dashboards for the documentation, from a real run that Prometheus watched."""
