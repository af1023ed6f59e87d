"""Greedy evaluation, trained agents, and the selection of the best agent of a run."""
