"""Live speech translation: a streaming speech encoder and a language model that write while the user speaks."""
