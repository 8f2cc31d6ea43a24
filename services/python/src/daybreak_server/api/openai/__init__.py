"""OpenAI's API. The gateway sends a request to a worker of the model, or to a group of the pool, that the request
names. Errors have OpenAI's format."""
