"""A whole run: `train` and `resume`, and what they set up, step, save and leave."""
