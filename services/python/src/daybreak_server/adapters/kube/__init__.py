"""The Kubernetes API: calls (``client``), the watch cache (``cache``), and parsing of objects (``parse``)."""
