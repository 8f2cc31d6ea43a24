"""The scripts, and beside each the module that speaks with it in domain words."""
