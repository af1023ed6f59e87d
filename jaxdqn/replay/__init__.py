"""Replay: a ring of rows, which rows can start a window, and how much memory the ring needs."""
