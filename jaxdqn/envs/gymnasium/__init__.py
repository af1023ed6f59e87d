"""Make one gymnasium environment, check it, and wrap it so that it returns what replay holds."""
