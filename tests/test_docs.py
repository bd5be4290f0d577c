"""Public names are documented, and names in the documentation exist."""

import ast
import importlib
import inspect
import re
from pathlib import Path

import pytest

from sklearn_stndt import STNDTEstimator

ROOT = Path(__file__).parents[1]
API = (ROOT / "docs" / "api" / "index.rst").read_text()
PUBLIC = (
    "",
    ".datasets",
    ".export",
    ".inspection",
    ".live",
    ".metrics",
    ".persistence",
    ".plotting",
    ".presets",
    ".streaming",
)


def public_names(module):
    """Names in `__all__`, or without it those that a module defines."""
    if hasattr(module, "__all__"):
        return set(module.__all__)
    return {
        name
        for name, value in vars(module).items()
        if not name.startswith("_") and getattr(value, "__module__", None) == module.__name__
    }


def documented_names(module_name):
    """Names in the tables of this module on the API page."""
    names, current = set(), None
    for line in API.splitlines():
        if line.startswith(".. currentmodule:: "):
            current = line.split()[-1]
        elif current == module_name and re.fullmatch(r"   \w+", line):
            names.add(line.strip())
    return names


def examples():
    """Names of the example scripts."""
    return {path.name for path in (ROOT / "examples").glob("*.py")}


@pytest.mark.parametrize("name", PUBLIC)
def test_every_public_name_is_on_the_api_page_and_no_other(name):
    module = importlib.import_module(f"sklearn_stndt{name}")
    assert documented_names(module.__name__) == public_names(module)


@pytest.mark.parametrize("name", PUBLIC)
def test_every_public_name_and_method_has_a_docstring(name):
    module = importlib.import_module(f"sklearn_stndt{name}")
    for public in public_names(module):
        documented = getattr(module, public)
        assert inspect.getdoc(documented), public
        for method, function in inspect.getmembers(documented, inspect.isfunction):
            if not method.startswith("_"):
                assert inspect.getdoc(function), f"{public}.{method}"


def test_parameters_are_grouped_in_the_order_of_the_constructor():
    """Every parameter is in one group of the class docstring, and described in that order."""
    doc = inspect.getdoc(STNDTEstimator)
    groups, described = doc.split("Parameters\n----------\n")
    names = list(inspect.signature(STNDTEstimator).parameters)
    listed = re.findall(r"`(\w+)`", groups[groups.index("- Network:") :])
    assert listed == names
    described = described.split("\nAttributes\n")[0]
    lines = re.findall(r"^(\w[\w, ]*) : ", described, re.MULTILINE)
    assert [name for line in lines for name in line.split(", ")] == names


def test_every_example_is_in_the_order_of_the_gallery():
    tree = ast.parse((ROOT / "docs" / "_ext" / "gallery_order.py").read_text())
    (ordered,) = (
        ast.literal_eval(node.value)
        for node in tree.body
        if isinstance(node, ast.Assign) and node.targets[0].id == "EXAMPLES"
    )
    assert len(ordered) == len(set(ordered))
    assert set(ordered) == examples()


def test_every_display_is_shown_by_an_example():
    from sklearn_stndt import plotting

    scripts = "".join((ROOT / "examples" / name).read_text() for name in examples())
    assert [name for name in plotting.__all__ if f"{name}.from_" not in scripts] == []


def test_every_guide_is_in_the_table_of_contents():
    guides = {path.stem for path in (ROOT / "docs" / "guide").glob("*.md")} - {"index"}
    index = (ROOT / "docs" / "guide" / "index.md").read_text()
    tables = "".join(re.findall(r"```{toctree}(.*?)```", index, re.S))
    listed = re.findall(r"^(?:[^:\n].*<)?(\w+)>?$", tables, re.M)
    assert sorted(listed) == sorted(guides)


def test_pages_link_to_examples_that_exist():
    for page in (ROOT / "docs").glob("**/*.md"):
        for example in re.findall(r"/auto_examples/(\w+)", page.read_text()):
            assert f"{example}.py" in examples() or example == "index", (page.name, example)


def test_no_page_of_the_documentation_is_too_long():
    for page in [*(ROOT / "docs" / "guide").glob("*.md"), *(ROOT / "docs" / "_ext").glob("*.py")]:
        assert len(page.read_text().splitlines()) <= 400, page.name


def test_no_page_has_control_characters():
    """A lost backslash, as of \\frac, leaves one, which a renderer refuses or drops."""
    for page in [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), *ROOT.glob("docs/guide/*.md")]:
        assert not re.findall(r"[^\S \n]|[\x00-\x08\x0e-\x1f]", page.read_text()), page.name
