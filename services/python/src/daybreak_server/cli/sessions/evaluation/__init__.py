"""``daybreakd sessions evaluate`` measures the quality and the delay of a pool's translations for many users
at once."""
