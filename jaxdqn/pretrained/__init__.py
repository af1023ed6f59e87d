"""The files of the agents that the package contains. See `jaxdqn.evaluation.pretrained`, which reads them."""

PRETRAINED = ("cartpole", "ball")
"""Their names."""
