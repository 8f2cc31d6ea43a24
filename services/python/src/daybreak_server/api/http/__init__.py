"""HTTP itself, without any route: middleware, exception handlers, request bodies, responses."""
