"""Agents and runs on disk and back."""
