"""Environments with image or vector observations, gymnasium's and functional ones, in one row format.

A process that only steps environments does not import JAX, so that it starts quickly. Importing this package registers
our environments with gymnasium: `gymnasium.make("jaxdqn.envs:jaxdqn/Ball-v0")` works anywhere.
"""

from jaxdqn.envs.registry import register_env

BALL = "jaxdqn/Ball-v0"

register_env("CartPole-v1", functional="jaxdqn.envs.functional.cartpole:make_cartpole")
register_env(BALL, functional="jaxdqn.envs.functional.ball:make_ball")
for _id, _maker in (
    ("MinAtar/Asterix-v1", "asterix"),
    ("MinAtar/Breakout-v1", "breakout"),
    ("MinAtar/Freeway-v1", "freeway"),
    ("MinAtar/SpaceInvaders-v1", "space_invaders"),
):
    register_env(_id, functional=f"jaxdqn.envs.functional.minatar:{_maker}")
