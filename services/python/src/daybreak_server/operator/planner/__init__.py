"""Pure functions that decide, from what the operator observed, which actions a pool needs."""
