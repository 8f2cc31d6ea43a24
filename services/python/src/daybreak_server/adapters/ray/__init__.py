"""Ray as Daybreak uses it: where ranks meet, what their nodes are, and notices of draining."""
