"""HTTP itself: middleware, request bodies, responses, errors."""
