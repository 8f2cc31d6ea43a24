"""Rules that check settings: numbers, addresses, the config file, and settings that depend on each other."""
