"""Check the wheel and the sdist in a folder, as a new user meets them: part of `make dist`.

Contents first. Then each is installed into an empty environment outside of the repository, which
runs the first example of README.md and a short script from there; the sdist also runs some of its
tests.
"""

import argparse
import os
import re
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

# What stays in the repository: settings of tools and hosts that a released version does not need.
NOT_SHIPPED = (".ci/", ".github/", ".pre-commit-config.yaml", ".readthedocs.yaml")
TESTS = ["test_metrics.py", "test_model.py", "test_windows.py"]
TEST_PACKAGES = ["hypothesis", "pytest"]

SMOKE = """
import pathlib, tempfile
import numpy as np
import sklearn_stndt
from sklearn.linear_model import Ridge
from sklearn.pipeline import make_pipeline
from sklearn_stndt import BinwiseRegressor, STNDTEstimator, load, save
from sklearn_stndt.datasets import make_reaches

data = make_reaches(n_trials=40, random_state=0)
estimator = STNDTEstimator(max_epochs=3, random_state=0).fit(data.spikes)
rates = estimator.transform(data.spikes)
assert rates.shape == data.spikes.shape and np.isfinite(rates).all() and (rates > 0).all()
assert np.isfinite(estimator.score(data.spikes))
decoder = make_pipeline(STNDTEstimator(max_epochs=3, random_state=0), BinwiseRegressor(Ridge()))
velocity = decoder.fit(data.spikes, data.velocity).predict(data.spikes)
assert velocity.shape == data.velocity.shape
with tempfile.TemporaryDirectory() as folder:
    folder = pathlib.Path(folder)
    save(estimator, folder / "rates.stndt")
    assert np.array_equal(load(folder / "rates.stndt").transform(data.spikes), rates)
    save(decoder, folder / "decoder.stndt")
    assert np.array_equal(load(folder / "decoder.stndt").predict(data.spikes), velocity)
print("fit, transform, score, pipeline, save and load: passed")
"""


def contents(archive):
    """Names of the files in a wheel or sdist, in an sdist without its first folder."""
    if archive.suffix == ".whl":
        with zipfile.ZipFile(archive) as wheel:
            return set(wheel.namelist())
    with tarfile.open(archive) as sdist:
        return {name.partition("/")[2] for name in sdist.getnames()}


def check_contents(wheel, sdist):
    """Every tracked file is in the sdist, the package is in the wheel, and nothing else is."""
    listed = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    tracked = {name for name in listed.stdout.splitlines() if not name.startswith(NOT_SHIPPED)}
    in_sdist = contents(sdist) - {"PKG-INFO"}
    if in_sdist != tracked:
        sys.exit(
            f"{sdist.name} lacks {sorted(tracked - in_sdist)}, and has "
            f"{sorted(in_sdist - tracked)}, which git does not track: see "
            "[tool.hatch.build.targets.sdist] in pyproject.toml"
        )
    package = {name for name in tracked if name.startswith("sklearn_stndt/")}
    in_wheel = contents(wheel)
    metadata = {name for name in in_wheel if ".dist-info/" in name}
    if in_wheel - metadata != package or "sklearn_stndt/py.typed" not in package:
        sys.exit(f"{wheel.name} differs from the package: {sorted(package ^ in_wheel - metadata)}")
    if not any(name.endswith("/licenses/LICENSE") for name in metadata):
        sys.exit(f"{wheel.name} has no licence")
    print(f"{sdist.name}: {len(in_sdist)} files; {wheel.name}: {len(in_wheel)} files", flush=True)


class Environment:
    """An empty virtual environment in a folder of its own, outside of the repository."""

    def __init__(self, folder):
        self.folder = folder
        subprocess.run([sys.executable, "-m", "venv", folder / "venv"], check=True)
        self.python = folder / "venv" / ("Scripts" if os.name == "nt" else "bin") / "python"
        self.variables = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
        self.variables |= {"OMP_NUM_THREADS": "1", "MPLBACKEND": "Agg"}

    def run(self, *arguments, cwd=None):
        """Run Python; what it prints is shown, and an error ends the check."""
        run = subprocess.run(
            [self.python, *arguments], cwd=cwd or self.folder, env=self.variables, check=False
        )
        if run.returncode:
            sys.exit(f"failed in {self.folder}: python {' '.join(map(str, arguments))[:200]}")

    def install(self, *requirements):
        """Install packages in the versions of constraints.txt."""
        pip = ("-m", "pip", "install", "--quiet", "--progress-bar", "off")
        self.run(*pip, "-c", ROOT / "constraints.txt", *requirements)


def check_installed(archive, version, folder):
    """Install an archive, and run the example, the script and, for an sdist, tests."""
    environment = Environment(folder)
    print(f"\n== {archive.name}, installed in {folder}", flush=True)
    environment.install(archive)
    environment.run(
        "-c",
        "import sklearn_stndt as s, sys; assert s.__file__.startswith(sys.prefix), s.__file__; "
        f"assert s.__version__ == {version!r}, s.__version__",
    )
    example = re.search(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.S).group(1)
    print("the first example of README.md prints", flush=True)
    environment.run("-c", example)
    environment.install(f"sklearn-stndt[save] @ {archive.as_uri()}")
    environment.run("-c", SMOKE)
    if archive.suffix == ".gz":
        with tarfile.open(archive) as sdist:
            sdist.extractall(folder, filter="data")
        (unpacked,) = folder.glob("sklearn_stndt-*")
        environment.install(*TEST_PACKAGES)
        # -P: against the installed package, not the one in the current folder
        pytest = ("-P", "-m", "pytest", "-q", "-p", "no:cacheprovider")
        environment.run(*pytest, *(f"tests/{name}" for name in TESTS), cwd=unpacked)


def main():
    """Check the only wheel and the only sdist in the folder."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    dist = parser.parse_args().folder.resolve()
    (wheel,), (sdist,) = dist.glob("*.whl"), dist.glob("*.tar.gz")
    version = wheel.name.split("-")[1]
    check_contents(wheel, sdist)
    with tempfile.TemporaryDirectory(prefix="sklearn_stndt-") as folder:
        for archive in (wheel, sdist):
            place = Path(folder) / archive.suffix[1:]
            place.mkdir()
            check_installed(archive, version, place)
    print(f"\n{wheel.name} and {sdist.name} can be released")


if __name__ == "__main__":
    main()
