"""Environments: frames instead of vectors, vector environments in one row format, and functional ones.

What a process needs that only steps environments does not import JAX, so that it starts quickly. Importing this makes
ours known to gymnasium: `gymnasium.make("jaxdqn.envs:jaxdqn/Ball-v0")`, from anywhere.
"""

import gymnasium as gym

BALL = "jaxdqn/Ball-v0"

# By its entry point: it is drawn by JAX, which is imported only when one is made.
gym.register(BALL, entry_point="jaxdqn.envs.device:make_gymnasium_ball")
