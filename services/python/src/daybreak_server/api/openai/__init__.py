"""OpenAI's API. The gateway sends a request to a worker of the model that the request names. Errors have OpenAI's
format."""
