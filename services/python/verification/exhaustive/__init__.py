"""Explores every order of calls to a store with at most two tasks, until no call leads to a new state."""
