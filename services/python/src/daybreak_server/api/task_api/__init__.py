"""The native face of the API, ``/v1``: routes, pagination, errors as RFC 9457, OpenAPI."""
