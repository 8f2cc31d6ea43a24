"""Measures embedding for many callers: batches of several sizes, and Daybreak beside other servers.

This module imports nothing, because the apps of the other servers import the package in separate environments.
"""
