"""Measures Daybreak on Kubernetes, from a POST at zero until the pods are gone, beside baselines of the same run."""
