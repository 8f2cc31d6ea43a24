"""The command ``daybreakd``."""
