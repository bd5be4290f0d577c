"""Imports run downwards, as docs/architecture.md draws them."""

import ast
import re
from pathlib import Path

import pytest

import sklearn_stndt

PACKAGE = Path(sklearn_stndt.__file__).parent
PAGE = Path(__file__).parents[1] / "docs" / "architecture.md"
# from the top: a part imports from lower lines, or from itself
LAYERS = [
    {"__init__"},
    {"__main__"},
    {"cli"},
    {"live"},
    {"export", "plotting", "streaming"},
    {"ensemble", "inspection", "sessions"},
    {"persistence"},
    {"estimator"},
    {"_base", "decoding", "presets"},
    {"inference", "_scoring", "datasets"},
    {"training"},
    {"_validation", "_fingerprints"},
    {"metrics", "_pretrained"},
    {"network", "windows", "_rates"},
    {"_containers", "_failures", "_files", "_mistakes", "_parameters", "_progress", "_workers"},
]
LEVEL = {part: level for level, parts in enumerate(LAYERS) for part in parts}
FILES = sorted(PACKAGE.rglob("*.py"))
# packages that a part must do without, wherever in a file it would import them
WITHOUT = {
    "network": {"sklearn", "skorch", "numpy.random", "pandas", "matplotlib"},
    "metrics": {"torch", "skorch", "matplotlib"},
    "datasets": {"torch", "skorch", "matplotlib"},
    "cli": {"torch", "skorch", "matplotlib", "pandas"},
    "windows": {"sklearn", "skorch", "matplotlib"},
    "inference": {"sklearn", "matplotlib"},
    "training": {"matplotlib"},
    "_files": {"numpy", "torch", "sklearn", "skorch"},
    "_mistakes": {"torch", "sklearn", "skorch"},
    "_workers": {"numpy", "torch", "sklearn", "skorch"},
    "_progress": {"numpy", "torch", "sklearn", "skorch"},
    "_parameters": {"torch", "skorch"},
    "_fingerprints": {"torch", "skorch"},
    "_rates": {"torch", "skorch"},
    "_containers": {"torch", "sklearn", "skorch", "pandas", "pynapple", "xarray"},
}


def part_of(path):
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(path):
    """Names of the modules that a file imports, at its top or inside functions."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path} has a relative import"
            names.add(node.module)
    return names


def test_every_part_has_its_layer():
    assert {part_of(path) for path in FILES} == LEVEL.keys()


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_run_downwards(path):
    part = part_of(path)
    for name in imports(path):
        if name.startswith("sklearn_stndt."):
            other = name.split(".")[1]
            assert other == part or LEVEL[other] > LEVEL[part], f"{part} imports {name}"
        assert not any(re.match(rf"{banned}\b", name) for banned in WITHOUT.get(part, ())), name


@pytest.mark.parametrize("part", sorted(LEVEL.keys() - {"__init__"}))
def test_files_of_a_part_import_each_other_in_one_direction(part):
    files = [path for path in FILES if part_of(path) == part and path.name != "__init__.py"]
    needs = {}
    for path in files:
        name = ".".join(["sklearn_stndt", *path.relative_to(PACKAGE).with_suffix("").parts])
        needs[name] = imports(path)
    needs = {name: found & needs.keys() - {name} for name, found in needs.items()}
    while needs:
        ready = [name for name, found in needs.items() if not found]
        assert ready, f"a circle of {sorted(needs)}"
        needs = {n: found - set(ready) for n, found in needs.items() if n not in ready}


def test_the_page_names_every_part():
    page = PAGE.read_text()
    for part in LEVEL.keys() - {"__init__"}:
        assert re.search(rf"`{part}(/|\.py)`", page), part
