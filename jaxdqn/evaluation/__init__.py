"""Whole greedy episodes, trained agents, and which of them a run keeps."""
