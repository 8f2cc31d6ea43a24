"""Live speech translation: a streaming speech encoder, and a language model that writes while the user speaks."""
