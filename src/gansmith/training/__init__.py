"""Training: the algorithm, its techniques, the loop and its chores."""
