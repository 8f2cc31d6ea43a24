"""Daybreak on Kubernetes, from a POST at zero to pods that are gone, beside baselines of the same run."""
