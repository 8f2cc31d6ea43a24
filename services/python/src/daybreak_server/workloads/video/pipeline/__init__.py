"""The ranks' side of the video workload: model, denoise loop, parallelism, decoder, encoder."""
