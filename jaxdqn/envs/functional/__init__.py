"""Environments as pure functions."""
