"""Faults in a whole ``daybreakd up`` with Ray. Each case kills, stops or hangs some of its processes."""
