"""The checks, one module per kind of promise. Each is a pure function from :class:`Observations` to violations."""
