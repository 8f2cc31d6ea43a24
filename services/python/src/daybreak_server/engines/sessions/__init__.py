"""Groups that serve streaming sessions, iteration by iteration.

``session`` is one session as its group knows it: pure. ``table`` has those of a group, the scheduler and the model;
only the work thread touches it. ``threads`` are the threads that talk to the store: they claim sessions and read audio,
renew leases, and write commits, so that the model never waits for Redis. ``leader`` is the loop.
"""
