"""Files that are complete or absent, never half-written."""
