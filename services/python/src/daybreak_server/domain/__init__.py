"""The rules of Daybreak without any input or output: states, transitions, fairness. Standard library only."""
