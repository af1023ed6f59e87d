"""The fields of a config about the environment and about the algorithm; `jaxdqn.config.Config` has them all."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

ATARI_OPTIONS = ("frame_skip", "sticky_actions", "noop_max", "fire_reset")
"""Fields about Atari games, and options of `jaxdqn.envs.atari`."""


def plain_id(env: str) -> str:
    """Return a gymnasium id without the module `ale_py`, which the id of an Atari game does not need."""
    return env.removeprefix("ale_py:") if env.startswith("ale_py:ALE/") else env


def is_atari(env: str) -> bool:
    """Return whether a gymnasium id is that of an Atari game, such as `ALE/Pong-v5`."""
    return env.startswith("ALE/")


@dataclass(frozen=True)
class EnvFields:
    """What is observed, and the network that sees it."""

    env: str = "CartPole-v1"
    """Gymnasium id of an environment with discrete actions."""
    eval_env: str | None = None
    """Gymnasium id of the environment for evaluations, for example without clipped rewards; None: the same as env."""
    output: str | None = None
    """Folder of the run; None: runs/NAME of the preset or the environment, with a number if that folder exists."""
    seed: int = 0
    """Seed of the parameters, exploration, sampling and environments."""
    pixels: bool | None = None
    """Learn from images, drawn by render() if needed; --no-pixels: from vectors; None: from what the env gives."""
    colour: bool = False
    """Keep the colours of resized images; otherwise they become grey."""
    frame_size: int = 64
    """Height and width of resized images. Images up to 32x32, or with other than 1 or 3 channels, are not resized."""
    frame_skip: int | None = None
    """Atari: frames of the game that an action is repeated for; None: 4."""
    sticky_actions: float | None = None
    """Atari: probability that a frame repeats the previous action; None: 0.25, as gymnasium's ids have it."""
    noop_max: int | None = None
    """Atari: highest number of single frames without an action, a random one, before an episode; None: 0."""
    fire_reset: bool | None = None
    """Atari: start episodes with FIRE, in games with this action; None: no."""
    frame_stack: int | None = None
    """Number of newest images that the network sees at once; None: 4 for grey or resized images, 1 for grids."""
    normalisation_frames: int | None = None
    """Random-rollout images for the mean and deviation that normalise channels; 0: none; None: 500 if above 32x32."""
    network: Literal["auto", "cnn", "nature", "impala", "grid", "motion", "padded-motion", "torchrl"] = "auto"
    """CNN for images; auto: cnn from 36x36 pixels, otherwise grid. The last three are for CartPole. Vectors: MLP."""
    value_bias: float = 0.0
    """Value that the network predicts initially: the bias of its value head."""
    compute_dtype: Literal["float32", "bfloat16"] = "float32"
    """Dtype in which convolutions and the first dense layer compute; bfloat16: accelerators. Parameters: float32."""
    random_shift: int = 0
    """Largest sideways shift of sampled transitions, in pixels; use 0 if a shift changes their value."""
    mirror: bool = False
    """Mirror half of the sampled transitions: flip images left to right, replace action a by num_actions - 1 - a."""
    symmetries_of: str | None = None
    """Gymnasium id of the only environment that random_shift and mirror apply to; None: to every environment."""
    dueling: bool = True
    """Estimate the value of a state and the advantage of each action separately; --no-dueling: action values alone."""
    activation: Literal["elu", "relu"] = "elu"
    """Activation of hidden layers."""
    layer_norm: bool = False
    """Normalise each hidden layer before its activation."""


@dataclass(frozen=True)
class AlgorithmFields:
    """What is learned from replay, and how actions are explored. `jaxdqn.ALGORITHMS` sets some of these by name."""

    gamma: float = 0.99
    """Discount per step."""
    n_steps: int = 3
    """Maximum number of steps in a return before bootstrapping."""
    reward_scale: float = 1.0
    """Factor on rewards for learning; reported returns are not scaled."""
    clip_rewards: bool = False
    """Clip rewards to [-1, 1] for learning, before reward_scale; reported returns are not clipped."""
    terminal_on_life_loss: bool = False
    """Learn from a lost life as from a terminal state; the episode and its return go on. It needs info["lives"]."""
    double: bool = True
    """Use double Q-learning: the online network chooses the next action and the target network evaluates it."""
    munchausen: bool = False
    """Munchausen Q-learning: a soft next action, and a bonus for likely actions. Turn double off."""
    munchausen_alpha: float = 0.9
    """Weight of Munchausen's bonus."""
    munchausen_tau: float = 0.03
    """Temperature of Munchausen's policy, in units of scaled rewards."""
    munchausen_clip: float = -1.0
    """Lower bound of Munchausen's bonus before it is weighted."""
    loss: Literal["squared", "huber"] = "huber"
    """Loss of the TD error, without a distribution."""
    distribution: Literal["none", "c51", "hl-gauss", "qr", "iqn"] = "none"
    """What is learned of returns: probabilities (c51), bins of the mean (hl-gauss), quantiles; none: the mean alone."""
    atoms: int = 51
    """Number of returns in the support of c51."""
    v_min: float | None = None
    """Lowest return of the support, in units of scaled rewards; None: -reward_scale / (1 - gamma)."""
    v_max: float | None = None
    """Highest return of the support; None: reward_scale / (1 - gamma)."""
    quantiles: int = 200
    """Number of quantiles of qr."""
    iqn_taus: int = 8
    """Number of quantile fractions that iqn draws for each observation; the paper has 64."""
    prioritized: bool = False
    """Draw transitions from replay in proportion to their priority: their newest TD error."""
    priority_alpha: float = 0.6
    """Exponent of priorities, from 0 (uniform draws) to 1."""
    priority_beta: float = 0.4
    """Exponent of importance weights at the start of the run."""
    priority_beta_end: float = 1.0
    """Exponent of importance weights at the end of the run; it moves linearly. 1 undoes the bias of the draws."""
    tau: float = 0.005
    """Fraction of the online parameters that enters the target after each update."""
    target_period: int | None = None
    """Updates between copies of the online parameters to the target, in place of tau; None: tau, after each update."""
    noisy: bool = False
    """Explore by noise on the weights of the network's heads, in place of epsilon; evaluations have no noise."""
    noisy_sigma: float = 0.5
    """Initial size of that noise, relative to the initial weights."""
    epsilon_schedule: Literal["linear", "exponential", "constant"] = "linear"
    """How epsilon moves from its start to its end; constant: it is epsilon_end after the warm-up."""
    epsilon_start: float = 1.0
    """Probability of a random action at frame 0; during the warm-up it is 1."""
    epsilon_end: float = 0.05
    """Final probability of a random action; with 0.01, agents of LunarLander-v3 hover in some episodes."""
    epsilon_frames: int | None = None
    """Frames over which epsilon falls; None: a fifth of the run; 0: the whole run."""
