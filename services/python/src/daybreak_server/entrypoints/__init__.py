"""Where processes of a deployment begin: the gateway, the operator, the Ray Serve applications, the watchdog."""
