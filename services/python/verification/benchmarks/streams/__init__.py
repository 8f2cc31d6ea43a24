"""Measures two ways to follow tasks: thousands of SSE clients on one gateway, and the relay of a control plane."""
