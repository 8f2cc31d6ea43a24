"""The rules of Daybreak without input or output: states, transitions, policies. Standard library only."""
