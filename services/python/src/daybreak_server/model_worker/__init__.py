"""A worker: runs model servers (engines) on a machine outside Ray, and passes requests to them.

It speaks HTTP with a gateway, and nothing else: it imports neither Ray nor torch nor Redis.
"""
