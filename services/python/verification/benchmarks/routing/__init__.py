"""The router beside other routers: what each adds to a request, and how much of a core each request takes."""
