"""``python -m verification.benchmarks.video``: what a video costs in our group beside the bare loop."""
