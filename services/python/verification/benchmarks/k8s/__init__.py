"""Daybreak on Kubernetes, from a POST at zero to pods that are gone, beside floors of the same run."""
