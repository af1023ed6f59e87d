"""Several environments, stepped together."""
