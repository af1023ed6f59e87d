"""Loops, files and everything else with side effects."""
