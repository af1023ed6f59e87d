"""Deep Q-learning from pixels in JAX.

    for step in jaxdqn.train(jaxdqn.PRESETS["cartpole"]): ...  # a whole run
    agent = jaxdqn.load(step.folder); agent(obs)               # a trained agent
    agent = jaxdqn.make_agent(config, ...)                     # the pure functions

The public names are listed in `__init__.pyi`. Each is imported when it is first used, so that `import jaxdqn` does not
import JAX: a process that only steps environments starts sooner.
"""

from importlib.metadata import version

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
__version__ = version("jaxdqn")
