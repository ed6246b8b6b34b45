"""The walls between layers (the design's section 5), read from the sources: no import is run."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "openmm_latent"

#: Top-level module or folder -> floor; what it imports of the package lies on the same floor or below.
FLOORS = {
    "units": 1,
    "version": 1,
    "errors": 1,
    "geometry": 1,
    "metrics": 1,
    "topology": 2,
    "nn": 2,
    "diffusion": 2,
    "model": 2,
    "data": 3,
    "propagators": 3,
    "models": 4,
    "training": 4,
    "lightning_loop": 4,
    "plugin": 4,
    "bundle": 5,
    "compiling": 5,
    "backmapping": 5,
    "conformations": 5,
    "simulation": 5,
    "tuning": 5,
    "reporters": 5,
    "walkers": 5,
    "hybrid": 5,
    "analysis": 5,
    "ensemble": 5,
    "report": 6,
    "cli": 6,
}
GENERATED = {"_build_info.py", "openmmlatent.py"}
SOURCES = sorted(
    path for path in PACKAGE.rglob("*.py") if path.name not in GENERATED and path != PACKAGE / "__init__.py"
)
CPP = sorted(path for path in (ROOT / "cpp").rglob("*") if path.suffix in {".h", ".cpp", ".i"})
MAX_LINES = 550

#: Imports that the table would refuse, each with its reason.
EXCEPTIONS = {
    # training writes its bundle at the end when `out` is given; imported inside the function.
    ("training", "bundle"),
}


def imported_modules(path):
    """Return the dotted names that a file imports, at any depth."""
    package = ("openmm_latent", *path.relative_to(PACKAGE).parts[:-1])
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            start = ".".join(package[: len(package) - node.level + 1]) if node.level else ""
            module = ".".join(part for part in (start, node.module) if part)
            names.update(f"{module}.{alias.name}" for alias in node.names)
    return names


def layer_of(dotted):
    """Return the top-level module of the package that a dotted name lies in, or None outside it."""
    parts = dotted.split(".")
    return parts[1] if parts[0] == "openmm_latent" and len(parts) > 1 else None


def own_layer(path):
    """Return the top-level module that a file lies in."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def source_id(path):
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", SOURCES, ids=source_id)
def test_every_module_has_a_floor_and_imports_point_down(path):
    own = own_layer(path)
    assert own in FLOORS, f"{own} has no floor: add it to this table and to the design"
    for name in imported_modules(path):
        layer = layer_of(name)
        if layer in FLOORS and (own, layer) not in EXCEPTIONS:
            assert FLOORS[layer] <= FLOORS[own], f"{path.name} (floor {FLOORS[own]}) imports {name} above it"


@pytest.mark.parametrize("path", [path for path in SOURCES if own_layer(path) == "metrics"], ids=source_id)
def test_metrics_imports_no_torch(path):
    allowed = {"errors", "geometry", "metrics", "units"}
    for name in imported_modules(path):
        assert name.split(".")[0] not in {"torch", "lightning", "openmm"}, name
        assert layer_of(name) in {None, *allowed}, name


@pytest.mark.parametrize(
    "path", [path for path in SOURCES if own_layer(path) in {"bundle", "simulation", "reporters"}], ids=source_id
)
def test_the_simulation_side_knows_no_family(path):
    assert not [name for name in imported_modules(path) if layer_of(name) in {"models", "training", "propagators"}]


@pytest.mark.parametrize("path", [path for path in SOURCES if own_layer(path) == "models"], ids=source_id)
def test_families_never_import_one_another(path):
    own_family = path.relative_to(PACKAGE / "models").parts[0].removesuffix(".py")
    for name in imported_modules(path):
        parts = name.split(".")
        if layer_of(name) == "models" and len(parts) > 2 and own_family != "__init__":
            assert parts[2] == own_family, f"{path.name} imports {name}"


def test_torch_jit_is_called_in_one_python_and_one_cpp_file():
    python = {path.name for path in SOURCES if "torch.jit" in path.read_text()}
    assert python <= {"bundle.py"}, python
    cpp = {path.name for path in CPP if path.suffix == ".cpp" and re.search(r"torch::jit::\w", path.read_text())}
    assert len(cpp) <= 1, cpp


@pytest.mark.parametrize(
    "path", [*SOURCES, *CPP, *sorted(ROOT.glob("tests/**/*.py")), *sorted(ROOT.glob("examples/*.py"))], ids=source_id
)
def test_no_file_is_too_long(path):
    n_lines = len(path.read_text().splitlines())
    assert n_lines <= MAX_LINES, f"{n_lines} lines: split by topic"
