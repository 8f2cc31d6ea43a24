"""Daybreak on a Kubernetes cluster, for end-to-end tests and benchmarks."""
