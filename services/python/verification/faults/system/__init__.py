"""Faults in a whole ``daybreakd up`` with Ray: its processes are killed, frozen or starved, one case each."""
