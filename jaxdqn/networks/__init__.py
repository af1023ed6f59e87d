"""Q-networks and their layers."""
