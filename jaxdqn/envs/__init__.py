"""Environments: images, vectors, in lockstep and functional ones, in one row format.

What a process needs that only steps environments does not import JAX, so that it starts quickly. Importing this makes
ours known to gymnasium: `gymnasium.make("jaxdqn.envs:jaxdqn/Ball-v0")`, from anywhere.
"""

from jaxdqn.envs.registry import register_env

BALL = "jaxdqn/Ball-v0"

register_env("CartPole-v1", functional="jaxdqn.envs.functional.cartpole:make_cartpole")
register_env(BALL, functional="jaxdqn.envs.functional.ball:make_ball")
