"""OpenAI's API: requests that name a model go to its workers, and errors have OpenAI's shape."""
