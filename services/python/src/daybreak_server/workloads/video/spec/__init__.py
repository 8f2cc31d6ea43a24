"""The API's side of the video workload: parameters, limits, options, model folder. It does not import torch."""

from daybreak_server.workloads.video.spec.params import SPEC

__all__ = ["SPEC"]
