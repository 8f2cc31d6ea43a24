"""The native HTTP API, ``/v1``: routes, JSON, pagination, OpenAPI."""
