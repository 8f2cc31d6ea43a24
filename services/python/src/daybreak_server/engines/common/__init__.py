"""What every group of ranks needs, whatever engine runs on it: leases, watchdog, heartbeat, artifacts, progress."""
