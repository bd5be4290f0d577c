"""What `import sklearn_stndt` brings: all public names, and torch only when it is used."""

import ast
import copy
import json
import pickle
from pathlib import Path

import pytest
from subprocesses import output_of

import sklearn_stndt
from sklearn_stndt import plotting

FIRST = (
    "import sklearn_stndt",
    "import sklearn_stndt.metrics",
    "from sklearn_stndt.metrics import co_bps, velocity_scorer",
    "from sklearn_stndt.datasets import make_reaches, load_nwb, evaluate",
    "dir(sklearn_stndt), sklearn_stndt.metrics, sklearn_stndt.datasets",
    "import sklearn_stndt.presets",
    "from sklearn_stndt import BinwiseClassifier, BinwiseRegressor",
    "import sklearn_stndt.plotting",
    "from sklearn_stndt.plotting import DecodingDisplay, PSTHDisplay",
)
PROGRAM = """
import json, sys
loaded = {{}}
for statement in {statements!r}:
    exec(statement)
    loaded[statement] = sorted({{"torch", "skorch", "matplotlib"}} & sys.modules.keys())
print(json.dumps(loaded))
"""


FIT = """
import sys
from sklearn_stndt import STNDTEstimator
from sklearn_stndt.datasets import make_reaches
spikes = make_reaches(n_trials=20, n_bins=10, n_neurons=5, random_state=0).spikes
STNDTEstimator(d_model=8, max_epochs=2, random_state=0).fit(spikes)
print(sorted({"torch._dynamo", "torch.fx.experimental.symbolic_shapes"} & sys.modules.keys()))
"""


def test_torch_is_imported_when_an_estimator_of_rates_is():
    last = "from sklearn_stndt import STNDTEstimator"
    printed = output_of("-c", PROGRAM.format(statements=[*FIRST, last]))
    loaded = json.loads(printed)
    assert all(loaded[statement] == [] for statement in FIRST), loaded
    assert loaded[last] == ["skorch", "torch"]


def test_a_star_import_gives_all_public_names():
    names: dict = {}
    exec("from sklearn_stndt import *", names)
    assert names.keys() - {"__builtins__"} == set(sklearn_stndt.__all__)
    assert names["STNDTEstimator"] is sklearn_stndt.STNDTEstimator


@pytest.mark.parametrize("package", [sklearn_stndt, plotting], ids=lambda it: it.__name__)
def test_type_checkers_see_the_names_that_are_imported(package):
    """The imports for type checkers, `__all__` and the modules of names agree."""
    tree = ast.parse(Path(package.__file__).read_text())
    (block,) = (node for node in tree.body if isinstance(node, ast.If))
    seen = {
        alias.name: node.module.removeprefix(f"{package.__name__}.")
        for node in block.body
        for alias in node.names
    }
    assert seen == package._MODULES
    assert sorted(seen) == sorted(package.__all__)


def test_public_modules_are_those_that_exist():
    folder = Path(sklearn_stndt.__file__).parent
    found = {path.stem for path in folder.glob("[a-z]*.py")}
    found |= {path.parent.name for path in folder.glob("[a-z]*/__init__.py")}
    private = {"cli", "inference", "network", "training", "windows"}  # not on the API page
    assert found - private == sklearn_stndt._PUBLIC_MODULES


def test_names_are_completed_and_unknown_ones_are_refused():
    assert {*sklearn_stndt.__all__, "metrics", "__version__"} <= set(dir(sklearn_stndt))
    with pytest.raises(AttributeError, match="'sklearn_stndt' has no attribute 'STNDT'"):
        sklearn_stndt.STNDT  # noqa: B018
    assert set(plotting.__all__) <= set(dir(plotting))
    with pytest.raises(AttributeError, match=r"'sklearn_stndt.plotting' has no attribute 'Rates'"):
        plotting.Rates  # noqa: B018
    with pytest.raises(ImportError, match="cannot import name 'STNDT'"):
        from sklearn_stndt import STNDT  # noqa: F401


def test_classes_are_pickled_by_name():
    cls = sklearn_stndt.BaggingEnsemble
    assert pickle.loads(pickle.dumps(cls)) is copy.deepcopy(cls) is cls


def test_a_fit_does_not_import_the_compiler_of_torch():
    # which takes about as long as 100 updates
    assert output_of("-c", FIT).strip() == "[]"
