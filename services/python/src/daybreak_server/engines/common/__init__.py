"""The parts that every engine shares: leases, watchdog, heartbeat, artifacts and progress."""
