"""What every group of ranks needs: its lease, watchdog, heartbeat, artifacts and progress."""
