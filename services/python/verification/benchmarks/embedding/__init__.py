"""Measures embedding for many callers: batches of several sizes, and Daybreak beside other servers.

This package uses only the standard library, because the apps of the other servers import it in separate environments.
"""
