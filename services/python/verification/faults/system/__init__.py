"""Faults in a whole ``daybreakd up`` with Ray: its processes are killed, stopped or stuck, one case each."""
