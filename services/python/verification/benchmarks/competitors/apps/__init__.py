"""One module for each queue: its no-op task as a worker imports it, and its producer as a program."""
