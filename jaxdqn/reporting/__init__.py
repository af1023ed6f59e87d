"""Logs, TensorBoard files, learning curves and GIFs of a run."""
