"""Text to video with the Wan 2.2 family: ``spec`` for the API, ``pipeline`` for the ranks."""
