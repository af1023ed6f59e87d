"""Deep Q-learning from pixels in JAX.

    for step in jaxdqn.train(jaxdqn.PRESETS["cartpole"]): ...  # a whole run
    agent = jaxdqn.load(step.folder); agent(obs)               # a trained agent
    agent = jaxdqn.make_agent(config, ...)                     # the pure functions

Names are imported when they are first used, so that `import jaxdqn` does not import JAX: a process that only steps
environments starts six times sooner.
"""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jaxdqn.agent import ActorState as ActorState
    from jaxdqn.agent import Agent as Agent
    from jaxdqn.agent import AgentState as AgentState
    from jaxdqn.agent import make_agent as make_agent
    from jaxdqn.architectures import grid_cnn as grid_cnn
    from jaxdqn.architectures import motion_cnn as motion_cnn
    from jaxdqn.architectures import nature_cnn as nature_cnn
    from jaxdqn.architectures import small_cnn as small_cnn
    from jaxdqn.augmentation import augment_batch as augment_batch
    from jaxdqn.augmentation import mirror_batch as mirror_batch
    from jaxdqn.augmentation import random_shift as random_shift
    from jaxdqn.augmentation import shift_batch as shift_batch
    from jaxdqn.compilation import compiler_options as compiler_options
    from jaxdqn.compilation import jit as jit
    from jaxdqn.config import Config as Config
    from jaxdqn.convolution import Conv as Conv
    from jaxdqn.envs.adapters import GymnasiumEnv as GymnasiumEnv
    from jaxdqn.envs.adapters import from_func_env as from_func_env
    from jaxdqn.envs.adapters import from_gymnax as from_gymnax
    from jaxdqn.envs.ball import make_ball as make_ball
    from jaxdqn.envs.cartpole import make_cartpole as make_cartpole
    from jaxdqn.envs.collector import Collector as Collector
    from jaxdqn.envs.device import functional_env as functional_env
    from jaxdqn.envs.functional import FunctionalEnv as FunctionalEnv
    from jaxdqn.envs.functional import time_limit as time_limit
    from jaxdqn.envs.functional import vectorise as vectorise
    from jaxdqn.envs.pixels import PixelObservation as PixelObservation
    from jaxdqn.envs.pixels import make_env_fn as make_env_fn
    from jaxdqn.envs.pixels import spec_of_env as spec_of_env
    from jaxdqn.envs.registry import register_env as register_env
    from jaxdqn.envs.rows import advance as advance
    from jaxdqn.envs.rows import open_episodes as open_episodes
    from jaxdqn.envs.stepping import Stepper as Stepper
    from jaxdqn.envs.vector import Episode as Episode
    from jaxdqn.envs.vector import EpisodeStepper as EpisodeStepper
    from jaxdqn.envs.vector import make_vector_env as make_vector_env
    from jaxdqn.envs.vector import random_stacks as random_stacks
    from jaxdqn.exploration import epsilon_greedy as epsilon_greedy
    from jaxdqn.exploration import linear_epsilon as linear_epsilon
    from jaxdqn.learner import LearnerState as LearnerState
    from jaxdqn.learner import init_learner as init_learner
    from jaxdqn.learner import make_optimizer as make_optimizer
    from jaxdqn.learner import make_update as make_update
    from jaxdqn.learner import polyak_update as polyak_update
    from jaxdqn.losses import huber_loss as huber_loss
    from jaxdqn.losses import q_learning_td_error as q_learning_td_error
    from jaxdqn.losses import squared_loss as squared_loss
    from jaxdqn.networks import DuelingCNN as DuelingCNN
    from jaxdqn.networks import DuelingMLP as DuelingMLP
    from jaxdqn.networks import frame_differences as frame_differences
    from jaxdqn.networks import row_moments as row_moments
    from jaxdqn.observations import ObsSpec as ObsSpec
    from jaxdqn.parallel import make_mesh as make_mesh
    from jaxdqn.parallel import make_parallel_agent as make_parallel_agent
    from jaxdqn.preprocessing import ObservationStats as ObservationStats
    from jaxdqn.preprocessing import normalise as normalise
    from jaxdqn.preprocessing import observation_stats as observation_stats
    from jaxdqn.preprocessing import preprocess_frame as preprocess_frame
    from jaxdqn.preprocessing import push_frame as push_frame
    from jaxdqn.presets import PRESETS as PRESETS
    from jaxdqn.replay import Replay as Replay
    from jaxdqn.replay import ReplayState as ReplayState
    from jaxdqn.replay import make_replay as make_replay
    from jaxdqn.returns import n_step_return as n_step_return
    from jaxdqn.run.course import RunProgress as RunProgress
    from jaxdqn.run.device_evaluation import make_device_evaluation as make_device_evaluation
    from jaxdqn.run.device_loop import device_loop as device_loop
    from jaxdqn.run.device_run import DeviceRun as DeviceRun
    from jaxdqn.run.device_run import RunState as RunState
    from jaxdqn.run.device_run import make_device_run as make_device_run
    from jaxdqn.run.evaluation import Evaluation as Evaluation
    from jaxdqn.run.evaluation import Evaluator as Evaluator
    from jaxdqn.run.frame_store import FrameStore as FrameStore
    from jaxdqn.run.frame_store import with_frame_store as with_frame_store
    from jaxdqn.run.host_loop import host_loop as host_loop
    from jaxdqn.run.pictures import record_gif as record_gif
    from jaxdqn.run.plots import draw_curve as draw_curve
    from jaxdqn.run.policy import TrainedAgent as TrainedAgent
    from jaxdqn.run.policy import load as load
    from jaxdqn.run.progress import Progress as Progress
    from jaxdqn.run.training import resume as resume
    from jaxdqn.run.training import train as train
    from jaxdqn.types import Batch as Batch
    from jaxdqn.types import Rows as Rows

_HOMES = {
    "agent": ("ActorState", "Agent", "AgentState", "make_agent"),
    "architectures": ("grid_cnn", "motion_cnn", "nature_cnn", "small_cnn"),
    "augmentation": ("augment_batch", "mirror_batch", "random_shift", "shift_batch"),
    "compilation": ("compiler_options", "jit"),
    "config": ("Config",),
    "convolution": ("Conv",),
    "envs.adapters": ("GymnasiumEnv", "from_func_env", "from_gymnax"),
    "envs.ball": ("make_ball",),
    "envs.cartpole": ("make_cartpole",),
    "envs.collector": ("Collector",),
    "envs.device": ("functional_env",),
    "envs.vector": ("Episode", "EpisodeStepper", "make_vector_env", "random_stacks"),
    "envs.functional": ("FunctionalEnv", "time_limit", "vectorise"),
    "envs.pixels": ("PixelObservation", "make_env_fn", "spec_of_env"),
    "envs.registry": ("register_env",),
    "envs.rows": ("advance", "open_episodes"),
    "envs.stepping": ("Stepper",),
    "exploration": ("epsilon_greedy", "linear_epsilon"),
    "learner": ("LearnerState", "init_learner", "make_optimizer", "make_update", "polyak_update"),
    "losses": ("huber_loss", "q_learning_td_error", "squared_loss"),
    "networks": ("DuelingCNN", "DuelingMLP", "frame_differences", "row_moments"),
    "observations": ("ObsSpec",),
    "parallel": ("make_mesh", "make_parallel_agent"),
    "preprocessing": ("ObservationStats", "normalise", "observation_stats", "preprocess_frame", "push_frame"),
    "presets": ("PRESETS",),
    "replay": ("Replay", "ReplayState", "make_replay"),
    "returns": ("n_step_return",),
    "run.evaluation": ("Evaluation", "Evaluator"),
    "run.frame_store": ("FrameStore", "with_frame_store"),
    "run.course": ("RunProgress",),
    "run.device_evaluation": ("make_device_evaluation",),
    "run.device_loop": ("device_loop",),
    "run.device_run": ("DeviceRun", "RunState", "make_device_run"),
    "run.host_loop": ("host_loop",),
    "run.pictures": ("record_gif",),
    "run.plots": ("draw_curve",),
    "run.policy": ("TrainedAgent", "load"),
    "run.progress": ("Progress",),
    "run.training": ("resume", "train"),
    "types": ("Batch", "Rows"),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = sorted(_HOME_OF)


def __getattr__(name: str) -> Any:
    """Import a public name on first use."""
    if name == "__version__":
        return version("jaxdqn")
    if name not in _HOME_OF:
        raise AttributeError(f"module 'jaxdqn' has no attribute {name!r}")
    return getattr(import_module(f"jaxdqn.{_HOME_OF[name]}"), name)


def __dir__() -> list[str]:
    """Public names, imported or not."""
    return __all__
