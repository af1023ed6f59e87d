"""Code that several experiments share; the scripts are in the parent folder."""
