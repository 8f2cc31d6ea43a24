"""Compares the router with other routers: the latency that each adds to a request, and the CPU time of each
request."""
