"""Measures what it costs to follow tasks: thousands of SSE clients on one gateway, and a control plane's relay."""
