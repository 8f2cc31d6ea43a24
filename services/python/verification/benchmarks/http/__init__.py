"""Measures a submit over HTTP beside a request that does nothing, on the same server class."""
