"""The Kubernetes API: what it says as values (``views``), and the calls (``client``)."""
