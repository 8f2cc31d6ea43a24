"""What following costs: thousands of SSE clients on one gateway, and a control plane's relay."""
