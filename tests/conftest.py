"""Check shapes and types of signatures in every test, and share compiled programs between tests."""

import atexit
import gc
import os
import shutil
import signal
import subprocess
import sys
import tempfile

import numpy as np
import pytest
from hypothesis import settings
from jaxtyping import install_import_hook

FAST_COMPILATION = "--xla_cpu_use_fusion_emitters=false"

# The suite's time is XLA's compile time: tests share one cache and do not optimise code that runs for milliseconds.
# CI keeps the cache for its later parts, in the folder that JAXDQN_TEST_CACHE names.
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:  # workers of pytest-xdist inherit it
    if "JAXDQN_TEST_CACHE" in os.environ:
        os.environ["JAX_COMPILATION_CACHE_DIR"] = os.environ["JAXDQN_TEST_CACHE"]
    else:
        os.environ["JAX_COMPILATION_CACHE_DIR"] = tempfile.mkdtemp(prefix="jaxdqn-tests-")
        atexit.register(shutil.rmtree, os.environ["JAX_COMPILATION_CACHE_DIR"], ignore_errors=True)
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
    os.environ["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "-1"
    flags = [os.environ.get("XLA_FLAGS", ""), "--xla_backend_optimization_level=0"]
    # XLA's newer code generator for fusions compiles a small run more slowly: 17.0 s and not 10.6 s on one core.
    # Splitting a module for several compiling threads costs 13 % more CPU time, and both cores are busy.
    # A jaxlib that does not know a flag ends the process, so another process tries them first.
    options = "{'xla_cpu_use_fusion_emitters': False, 'xla_cpu_parallel_codegen_split_count': 1}"
    trial = f"import jax; jax.jit(abs, compiler_options={options})(1.0)"
    if subprocess.run([sys.executable, "-c", trial], capture_output=True, check=False).returncode == 0:
        flags += [FAST_COMPILATION, "--xla_cpu_parallel_codegen_split_count=1"]
    os.environ["XLA_FLAGS"] = " ".join(flags)

# Tracing makes many objects that stay: collecting less often takes 198 and not 223 s of CPU time in tests/training and
# tests/loops.
gc.set_threshold(100_000, 50, 100)

# A shell without job control starts background commands with Ctrl-C ignored, and the tests of Ctrl-C need it.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# By default a GPU multiplies float32 in TF32, which differs from NumPy and PyTorch by 1e-3.
os.environ.setdefault("JAX_DEFAULT_MATMUL_PRECISION", "highest")

# `--hypothesis-profile long` tests thousands of histories of the ring.
settings.register_profile("short", max_examples=60)
settings.register_profile("long", max_examples=2_000)
settings.load_profile("short")

# Packages whose signatures have shapes. Elsewhere mypy checks the types; a check of all packages takes 10 % more time.
# Without `config`: it checks its own fields, and its tests expect its own messages.
TYPE_CHECKED = (
    "agent augmentation envs evaluation exploration frame_store learner loops networks objectives observations "
    "parallel preprocessing replay reporting returns types"
)
install_import_hook([f"jaxdqn.{name}" for name in TYPE_CHECKED.split()], "beartype.beartype")


def pytest_collection_modifyitems(items):
    """Put files with slow tests first, so that both processes of pytest-xdist end at about the same time."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


@pytest.fixture(scope="session", autouse=True)
def cheap_runs():
    """Make runs cheap, also those of fixtures of a module.

    Runs write empty pictures, which saves a second each, unless a test is marked with `pictures`.

    Runs of one config, also those of `make_device_run`, share an agent, which is pure: it is compiled once. The sizes
    of each run are still checked. In a test that is marked with `makes_agents`, each run makes its own agent.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("jaxdqn.training.artifacts.draw_curve", lambda runs, path, **options: path.write_bytes(b""))
        patch.setattr("jaxdqn.training.artifacts.record_gif", lambda agent, path, **options: path.write_bytes(b""))
        patch.setattr("jaxdqn.loops.assemble.agent_of", _shared_agent)
        yield


@pytest.fixture(autouse=True)
def whole_runs_if_marked(request, monkeypatch):
    """Undo what `cheap_runs` does in a test with one of its marks."""
    if request.node.get_closest_marker("pictures"):
        draw_pictures(monkeypatch)
    if request.node.get_closest_marker("makes_agents"):
        from jaxdqn.parallel.parallel_agent import agent_of

        monkeypatch.setattr("jaxdqn.loops.assemble.agent_of", agent_of)


def draw_pictures(monkeypatch):
    """Let runs draw their pictures."""
    from jaxdqn.reporting.gif import record_gif
    from jaxdqn.reporting.plots import draw_curve

    monkeypatch.setattr("jaxdqn.training.artifacts.draw_curve", draw_curve)
    monkeypatch.setattr("jaxdqn.training.artifacts.record_gif", record_gif)


@pytest.fixture
def default_compilation(monkeypatch):
    """Compile programs as for users: with the flags for fast compilation, two programs may round differently."""
    from jaxdqn import compilation

    if FAST_COMPILATION in os.environ["XLA_FLAGS"]:
        monkeypatch.setitem(compilation._CPU_OPTIONS, "xla_cpu_use_fusion_emitters", True)
    compilation.compiler_options.cache_clear()
    saved = dict(_AGENTS)
    _AGENTS.clear()
    yield
    _AGENTS.clear()
    _AGENTS.update(saved)
    compilation.compiler_options.cache_clear()


_AGENTS: dict = {}

# Fields that `make_agent` does not read if it is given the spec of the observations.
_IRRELEVANT = frozenset(
    """
    env eval_env output seed pixels colour frame_size frame_stack normalisation_frames symmetries_of loop collector
    evaluate_every evaluation_episodes max_episode_steps log_every checkpoint_every checkpoint_seconds
    stop_seconds keep checkpoint_replay restart_workers
    """.split()  # noqa: SIM905
)


def _shared_agent(config, *, obs_stats=None, bytes_available=None, **how):
    from jaxdqn.parallel.parallel_agent import agent_of

    stats = None if obs_stats is None else tuple(np.asarray(part).tobytes() for part in obs_stats)
    relevant = tuple(value for name, value in vars(config).items() if name not in _IRRELEVANT)
    key = (relevant, stats, *how.items())
    if key not in _AGENTS:
        _AGENTS[key] = agent_of(config, obs_stats=obs_stats, **how)
    if bytes_available is not None and _AGENTS[key].replay.num_bytes > bytes_available * config.num_devices:
        return agent_of(config, obs_stats=obs_stats, bytes_available=bytes_available, **how)  # raises the error
    return _AGENTS[key]


@pytest.fixture
def strict_promotion(request):
    """JAX refuses to mix dtypes or ranks implicitly. Pieces hold this; optax's chains and gymnax do not."""
    import jax

    if request.node.get_closest_marker("implicit_promotion"):
        yield
        return
    with jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"):
        yield
