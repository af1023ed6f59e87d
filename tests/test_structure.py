"""What keeps the house in order: floors, file sizes, lazy imports, no circles."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "jaxdqn"
FILES = [*PACKAGE.rglob("*.py"), *(ROOT / "experiments").rglob("*.py"), *(ROOT / "tests").rglob("*.py")]
FLOORS = [
    {
        "types",
        "returns",
        "compilation",
        "convolution",
        "config",
        "config_checks",
        "presets",
        "launch",
        "streams",
        "global_program",
    },
    {
        *("architectures", "augmentation", "networks", "normalisation", "observations"),
        *("replay", "losses", "preprocessing", "exploration", "envs"),
    },
    {"learner"},
    {"schedules"},
    {"agent"},
    {"parallel"},
    {"run"},
    {"cli", "commands", "flags", "__main__"},
]


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


def floor_of(module):
    return next(index for index, names in enumerate(FLOORS) if module.split(".")[1] in names)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_file_is_over_250_lines(path):
    assert len(path.read_text().splitlines()) <= 250


def test_each_floor_imports_only_the_floors_below_or_its_own():
    for path in PACKAGE.rglob("*.py"):
        module = ".".join(("jaxdqn", *path.relative_to(PACKAGE).with_suffix("").parts))
        if path.name == "__init__.py":
            continue
        for imported in imports_of(path):
            assert floor_of(imported) <= floor_of(module), f"{module} imports {imported} from above"


def test_there_is_no_import_circle():
    graph = {}
    for path in PACKAGE.rglob("*.py"):
        if path.name != "__init__.py":
            graph[".".join(("jaxdqn", *path.relative_to(PACKAGE).with_suffix("").parts))] = imports_of(path)
    done = set()
    while len(done) < len(graph):
        free = {module for module, needs in graph.items() if module not in done and needs & set(graph) <= done}
        assert free, f"a circle among {sorted(set(graph) - done)}"
        done |= free


@pytest.mark.parametrize("module", ["jaxdqn", "jaxdqn.cli", "jaxdqn.run.rollout", "jaxdqn.preprocessing"])
def test_what_workers_and_help_need_does_not_import_jax(module):
    code = f"import sys, {module}; sys.exit('jax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_core_touches_no_environment_file_or_clock():
    banned = {"gymnasium", "os", "pathlib", "time", "logging", "tensorboardX"}
    for name in FLOORS[0] - {"streams"} | FLOORS[1] - {"envs"} | FLOORS[2] | FLOORS[3] | FLOORS[4] | FLOORS[5]:
        tree = ast.parse((PACKAGE / f"{name}.py").read_text())
        names = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
        names |= {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
        assert not {str(found).split(".")[0] for found in names} & banned


def test_every_public_name_can_be_imported():
    import jaxdqn

    for name in jaxdqn.__all__:
        assert getattr(jaxdqn, name) is not None
    with pytest.raises(AttributeError, match="nothing"):
        _ = jaxdqn.nothing
