"""Save agents and runs to disk, and load them."""
