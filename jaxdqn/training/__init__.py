"""`train` and `resume`: set up a run, train, save its state, and write its logs, agents and pictures."""
