"""Measures Daybreak on Kubernetes, from a POST at zero until the pods are gone, and baselines in the same run."""
