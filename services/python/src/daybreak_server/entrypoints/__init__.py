"""Where processes begin: commands, the gateway, the Ray Serve applications, supervision on one machine."""
