"""What a submit over HTTP costs, beside a request that does nothing on the same server."""
