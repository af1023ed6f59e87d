"""The files of the agents that the package contains. See `jaxdqn.evaluation.pretrained`, which reads them."""

from pathlib import Path

PRETRAINED = ("cartpole", "ball")
"""Their names."""

FOLDER = Path(__file__).parent
"""Where their files are."""
