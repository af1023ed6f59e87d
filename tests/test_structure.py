"""The structure of the package: its layers, the sizes of files and folders, lazy imports, no import cycles."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "jaxdqn"
FILES = [*PACKAGE.rglob("*.py"), *(ROOT / "experiments").rglob("*.py"), *(ROOT / "tests").rglob("*.py")]
# Packages and modules in their order: each imports from its own line and the lines above only.
LAYERS = [
    "types versions config config_checks config_fields algorithms presets pretrained compilation resume_command "
    "signals standard_streams averaging",
    "storage",
    "distributed",
    "preprocessing returns exploration",
    "objectives observations normalisation networks distributions replay augmentation envs",
    "learner schedules",
    "agent",
    "checkpoints frame_store parallel",
    "loops",
    "evaluation",
    "reporting",
    "training",
    "cli __main__",
]
PURE = {"config", "presets", "types", "compilation", *LAYERS[5].split(), "agent", "parallel"}
"""Modules without effects, beside the pieces of two lines of the table."""


def imports_of(path):
    """Modules of ours that a file imports, anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        names = [node.module] if isinstance(node, ast.ImportFrom) and node.module else []
        names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom) and node.module == "jaxdqn":
            names += [f"jaxdqn.{alias.name}" for alias in node.names]
        found |= {name for name in names if name.startswith("jaxdqn.")}
    return found


def layer_of(module):
    return next(index for index, names in enumerate(LAYERS) if module.split(".")[1] in names.split())


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_file_is_over_250_lines(path):
    assert len(path.read_text().splitlines()) <= 250


def test_no_folder_has_too_many_modules():
    for folder in {path.parent for path in PACKAGE.rglob("*.py")}:
        modules = [path for path in folder.glob("*.py") if path.name != "__init__.py"]
        assert len(modules) <= (24 if folder == PACKAGE else 12), folder


def test_storage_distributed_and_signals_import_no_piece_and_no_piece_imports_them():
    beside, pieces = {"storage", "distributed", "signals"}, {*LAYERS[3].split(), *LAYERS[4].split()} - {"envs"}
    for path in PACKAGE.rglob("*.py"):
        own = path.relative_to(PACKAGE).with_suffix("").parts[0]
        imported = {name.split(".")[1] for name in imports_of(path)}
        assert not (own in beside and imported & pieces), path
        assert not (own in pieces and imported & beside), path


def test_each_package_imports_only_packages_before_it():
    for path in PACKAGE.rglob("*.py"):
        module = ".".join(("jaxdqn", *path.relative_to(PACKAGE).with_suffix("").parts))
        if path.name == "__init__.py":
            continue
        for imported in imports_of(path):
            assert layer_of(imported) <= layer_of(module), f"{module} imports {imported}, which comes after it"


def test_there_is_no_import_cycle():
    graph = {}
    for path in PACKAGE.rglob("*.py"):
        if path.name != "__init__.py":
            graph[".".join(("jaxdqn", *path.relative_to(PACKAGE).with_suffix("").parts))] = imports_of(path)
    done = set()
    while len(done) < len(graph):
        free = {module for module, needs in graph.items() if module not in done and needs & set(graph) <= done}
        assert free, f"a cycle among {sorted(set(graph) - done)}"
        done |= free


@pytest.mark.parametrize("module", ["jaxdqn", "jaxdqn.cli.main", "jaxdqn.training.obs_stats", "jaxdqn.preprocessing"])
def test_what_workers_and_help_need_does_not_import_jax(module):
    code = f"import sys, {module}; sys.exit('jax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_core_touches_no_environment_file_or_clock():
    banned = {"gymnasium", "os", "pathlib", "time", "logging", "tensorboardX"}
    pieces = {*PURE, *LAYERS[3].split(), *LAYERS[4].split()} - {"envs"}
    for path in PACKAGE.rglob("*.py"):
        if path.relative_to(PACKAGE).with_suffix("").parts[0] not in pieces:
            continue
        tree = ast.parse(path.read_text())
        names = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
        names |= {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
        assert not {str(found).split(".")[0] for found in names} & banned


def test_every_public_name_can_be_imported():
    import jaxdqn

    for name in jaxdqn.__all__:
        assert getattr(jaxdqn, name) is not None
    with pytest.raises(AttributeError, match="nothing"):
        _ = jaxdqn.nothing
