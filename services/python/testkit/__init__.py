"""Helpers for the tests of several rooms; `tests/conftest.py` puts this folder on the path."""
