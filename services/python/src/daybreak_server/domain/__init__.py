"""The rules of Daybreak without any input or output: states, transitions, fairness, backoff. Standard library only."""
