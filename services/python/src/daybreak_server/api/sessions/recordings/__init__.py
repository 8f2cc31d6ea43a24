"""OpenAI's audio API: the transcript or the translation of a whole recording."""
