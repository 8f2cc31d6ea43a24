"""Daybreak's own API, ``/v1``: routes, pagination, errors as RFC 9457, OpenAPI."""
