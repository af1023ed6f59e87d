"""One gymnasium environment: made, checked, and wrapped to give what replay holds."""
