"""Every order in which a store of two tasks can be called, searched to the end."""
