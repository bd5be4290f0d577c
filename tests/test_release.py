"""Files of a release agree with each other."""

import re
import tomllib
from pathlib import Path

import pytest

import sklearn_stndt

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def text(name):
    return (ROOT / name).read_text()


def test_recipe_and_citation_have_the_version_of_the_package():
    (recipe,) = re.findall(r'set version = "(.*)"', text("recipe/meta.yaml"))
    (citation,) = re.findall(r"^version: (.*)$", text("CITATION.cff"), re.M)
    assert recipe == citation == sklearn_stndt.__version__


def test_the_recipe_has_the_lower_bounds_of_the_package():
    required = [name.replace("torch>=", "pytorch>=") for name in PROJECT["dependencies"]]
    required.append(f"python{PROJECT['requires-python']}")
    run = text("recipe/meta.yaml").partition("\n  run:\n")[2].partition("  run_constrained:")[0]
    found = [line.strip("- ").replace(" ", "") for line in run.splitlines()]
    assert sorted(found) == sorted(required)


@pytest.mark.parametrize("python", re.findall(r"3\.\d+", " ".join(PROJECT["classifiers"])))
def test_every_python_that_is_named_is_tested(python):
    workflow = ROOT / ".github" / "workflows" / "tests.yml"
    if not workflow.exists():
        pytest.skip("an sdist has no workflows")
    assert f'"{python}"' in re.search(r"python: \[(.*)\]", workflow.read_text()).group(1)


def test_every_package_that_is_required_is_pinned():
    pins = dict(re.findall(r"^([\w-]+)==(\S+)$", text("constraints.txt"), re.M))
    names = [re.match(r"[\w-]+", name).group() for name in PROJECT["dependencies"]]
    assert [name for name in names if name not in pins] == []
