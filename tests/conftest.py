"""Shapes and types in signatures are checked while the tests run; what was compiled once is not compiled again."""

import atexit
import dataclasses
import os
import shutil
import subprocess
import sys
import tempfile

import pytest
from hypothesis import settings
from jaxtyping import install_import_hook

QUICK_CODE = "--xla_cpu_use_fusion_emitters=false"

# The suite's time is XLA's compile time: tests share one cache, and code that runs for milliseconds is not optimised.
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:  # workers of pytest-xdist inherit the first process's
    os.environ["JAX_COMPILATION_CACHE_DIR"] = tempfile.mkdtemp(prefix="jaxdqn-tests-")
    atexit.register(shutil.rmtree, os.environ["JAX_COMPILATION_CACHE_DIR"], ignore_errors=True)
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
    os.environ["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "-1"
    flags = [os.environ.get("XLA_FLAGS", ""), "--xla_backend_optimization_level=0"]
    # XLA's newer code generator for fusions takes twice the time to compile a small run: 17.0 s and 10.6 s on one core.
    # A jaxlib that does not know the flag would end the process, so another one is asked first.
    asked = "import jax; jax.jit(abs, compiler_options={'xla_cpu_use_fusion_emitters': False})(1.0)"
    if subprocess.run([sys.executable, "-c", asked], capture_output=True, check=False).returncode == 0:
        flags.append(QUICK_CODE)
    os.environ["XLA_FLAGS"] = " ".join(flags)

# A GPU multiplies float32 in TF32 unless it is told otherwise: comparisons with NumPy and PyTorch are off by 1e-3.
os.environ.setdefault("JAX_DEFAULT_MATMUL_PRECISION", "highest")

# `--hypothesis-profile long` looks at thousands of histories of the ring.
settings.register_profile("short", max_examples=60)
settings.register_profile("long", max_examples=2_000)
settings.load_profile("short")

# Not `config`: it checks its own fields, in words for people, which is what its tests are about.
CHECKED = (
    "agent augmentation checkpoints distributed envs evaluation exploration frame_store learner loops losses networks "
    "observations preprocessing replay reporting returns signals storage training types"
)
install_import_hook([f"jaxdqn.{name}" for name in CHECKED.split()], "beartype.beartype")


@pytest.fixture(autouse=True)
def no_pictures(request, monkeypatch):
    """Runs leave empty pictures, which take a second to draw, but where a test is marked with `pictures`."""
    if request.node.get_closest_marker("pictures"):
        return
    monkeypatch.setattr("jaxdqn.training.artifacts.draw_curve", lambda runs, path, **options: path.write_bytes(b""))
    monkeypatch.setattr("jaxdqn.training.artifacts.record_gif", lambda agent, path, **options: path.write_bytes(b""))


@pytest.fixture
def users_code(monkeypatch):
    """Programs are compiled as users' are: two of them need not round alike with the code that is quick to compile."""
    from jaxdqn import compilation

    if QUICK_CODE in os.environ["XLA_FLAGS"]:
        monkeypatch.setitem(compilation._CPU_OPTIONS, "xla_cpu_use_fusion_emitters", True)
    compilation.compiler_options.cache_clear()
    remembered = dict(_AGENTS)
    _AGENTS.clear()
    yield
    _AGENTS.clear()
    _AGENTS.update(remembered)
    compilation.compiler_options.cache_clear()


@pytest.fixture(autouse=True)
def remembered_agents(request, monkeypatch):
    """Runs of one config share an agent, which is pure: it is traced and compiled once.

    What a run asks of its memory is checked each time. A test that is marked with `makes_agents` has runs make their
    own.
    """
    if not request.node.get_closest_marker("makes_agents"):
        monkeypatch.setattr("jaxdqn.training.setup.agent_of", _remembered)


_AGENTS: dict = {}


def _remembered(config, *, obs_stats=None, bytes_available=None, **how):
    from jaxdqn.parallel import agent_of

    remembered = _agent_of_key(config, obs_stats, how)
    if bytes_available is not None and remembered.replay.num_bytes > bytes_available * config.num_devices:
        return agent_of(config, obs_stats=obs_stats, bytes_available=bytes_available, **how)  # which says what is wrong
    return remembered


def _agent_of_key(config, obs_stats, how):
    from jaxdqn.parallel import agent_of

    stats = None if obs_stats is None else (obs_stats.mean.tobytes(), obs_stats.std.tobytes())
    not_the_agents = {"output": None, "evaluate_every": 0, "checkpoint_every": 0, "log_every": 0, "keep": 1, "seed": 0}
    key = (dataclasses.replace(config, **not_the_agents), stats, *how.items())
    if key not in _AGENTS:
        _AGENTS[key] = agent_of(config, obs_stats=obs_stats, **how)
    return _AGENTS[key]
