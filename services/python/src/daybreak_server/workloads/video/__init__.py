"""Text to video with the Wan 2.2 family: ``params`` for the API, ``workload`` for the ranks."""
