"""Explores every order of calls to a store of at most two tasks, until no new state is left."""
