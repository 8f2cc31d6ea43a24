"""The API's side of the video workload: parameters, limits, options, model folder. Imports no torch."""
