"""OpenAI's API. Requests that name a model are sent to its workers, and errors have OpenAI's format."""
