"""Shapes and types in signatures are checked while the tests run."""

from jaxtyping import install_import_hook

# Not `config`: it checks its own fields, in words for people, which is what its tests are about.
HOOKED = "agent convolution envs exploration learner losses networks preprocessing replay returns run types"
install_import_hook([f"jaxdqn.{name}" for name in HOOKED.split()], "beartype.beartype")
