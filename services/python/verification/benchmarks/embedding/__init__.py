"""Embedding for many callers: batches of several sizes, and Daybreak beside other servers.

Standard library only: the apps of the other servers import this package in environments of their own.
"""
