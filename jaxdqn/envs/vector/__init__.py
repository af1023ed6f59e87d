"""Step several environments together."""
