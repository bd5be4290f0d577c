"""Run tests on the oldest and the newest versions that pyproject.toml allows: `make test-matrix`.

The oldest Python runs with the lower bound of each required package, and every Python with the
newest versions, except of torch, which has the version of constraints.txt. Where only a build of it
for CUDA is found, which is several gigabytes, the environment goes without torch and runs the tests
that need none; `--any-torch` installs that build.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
PYTHONS = ("3.11", "3.12", "3.13", "3.14")

# About a minute of processor time: the checks of scikit-learn, and each part of the package once.
QUICK = [
    "architecture",
    "binning",
    "decoding",
    "likelihood",
    "losses",
    "masking",
    "metrics",
    "metrics_structure",
    "model",
    "net_assembly",
    "persistence",
    "presets",
    "settings",
    "sklearn_compliance",
    "splitting",
    "streaming",
    "synthetic",
    "windows",
]
WITHOUT_TORCH = ["architecture", "binning", "intervals", "metrics", "metrics_structure", "times"]
TEST_PACKAGES = ["hypothesis", "pandas", "pytest"]


def lower_bounds():
    """Requirements `name==version` for the lower bound of each required package."""
    return [name.replace(">=", "==") for name in PROJECT["dependencies"]]


def pinned(name):
    """Requirement of a package as constraints.txt has it."""
    return re.search(rf"^{name}==.*$", (ROOT / "constraints.txt").read_text(), re.M).group()


def interpreters(names):
    """Interpreters by version: those on PATH, else those of pyenv, that run."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    found = {}
    for name in names:
        installed = sorted(pyenv.glob(f"{name}.*/bin/python"), reverse=True)
        for candidate in [shutil.which(f"python{name}"), *installed]:
            command = [candidate, "-c", "import ensurepip, venv"]
            if candidate and subprocess.run(command, capture_output=True).returncode == 0:
                found[name] = candidate
                break
    return found


class Environment:
    """A virtual environment in .venv-matrix, made anew."""

    def __init__(self, python, label, constraints):
        folder = ROOT / ".venv-matrix" / label
        subprocess.run([python, "-m", "venv", "--clear", folder], check=True)
        self.python = folder / ("Scripts" if os.name == "nt" else "bin") / "python"
        self.log = folder / "pip.log"
        self.constraints = folder / "constraints.txt"
        self.constraints.write_text("\n".join(constraints) + "\n")
        # packages of another environment must not be found
        self.variables = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}

    def install(self, *arguments):
        """Install packages; True if pip found them."""
        command = [self.python, "-m", "pip", "install", "--progress-bar", "off"]
        with self.log.open("a") as log:
            return not subprocess.run(
                [*command, "-c", self.constraints, *arguments],
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=ROOT,
                env=self.variables,
            ).returncode

    def versions(self):
        """Required packages with their versions, as one line."""
        names = [re.match(r"[\w-]+", name).group() for name in PROJECT["dependencies"]]
        code = (
            "from importlib import metadata as m; installed = {d.name for d in m.distributions()};"
            f"print(*[f'{{n}} {{m.version(n)}}' for n in {names} if n in installed], sep=', ')"
        )
        command = [self.python, "-c", code]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    def test(self, arguments):
        """Run the tests against the installed package, and return the last line."""
        threads = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
        # -P: not against the package in the current directory
        command = [self.python, "-P", "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments]
        run = subprocess.Popen(
            command,
            cwd=ROOT,
            env={**self.variables, **threads, "MPLBACKEND": "Agg"},
            stdout=subprocess.PIPE,
            text=True,
        )
        last = ""
        for line in run.stdout:
            print(line, end="", flush=True)
            last = line.strip() or last
        return run.wait() == 0, last


def check(python, interpreter, label, constraints, options):
    """Run the tests in one environment; returns whether they passed, and what to say of it."""
    print(f"\n== Python {python}, {label}", flush=True)
    environment = Environment(interpreter, f"{python}-{label}", constraints)
    torch = next(name for name in constraints if name.startswith("torch=="))
    # The local version names the build for processors, which is a tenth of the download.
    has_torch = environment.install(f"{torch}+cpu") or (
        options.any_torch and environment.install(torch)
    )
    if not has_torch:
        print(f"no {torch}+cpu for Python {python}: tests that need no torch", flush=True)
        needed = [name for name in PROJECT["dependencies"] if not name.startswith("torch")]
        installed = environment.install(*needed, *TEST_PACKAGES) and environment.install(
            "--no-deps", "."
        )
        tests = ["--noconftest", *(f"tests/test_{name}.py" for name in WITHOUT_TORCH)]
    elif options.whole:
        installed, tests = environment.install(".[test,plot,io]"), []
    else:
        installed = environment.install(".[save]", *TEST_PACKAGES)
        tests = [f"tests/test_{name}.py" for name in QUICK]
    if not installed:
        print(environment.log.read_text()[-3000:], flush=True)
        return False, "installation failed"
    print(environment.versions(), flush=True)
    passed, last = environment.test(tests)
    kind = "" if has_torch else " (without torch)"
    return passed, f"{environment.versions()}{kind}: {last}"


def main():
    """Run every environment, then print one line for each."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--python", nargs="*", default=PYTHONS, help="versions, such as 3.12")
    parser.add_argument("--only", choices=("oldest", "newest"), help="one set of versions")
    parser.add_argument("--whole", action="store_true", help="all tests, with their packages")
    parser.add_argument("--any-torch", action="store_true", help="also the build for CUDA")
    options = parser.parse_args()

    found = interpreters(options.python)
    if missing := [name for name in options.python if name not in found]:
        print(f"not on this machine: Python {', '.join(missing)}")
    if not found:
        sys.exit("no interpreter to test with")
    oldest = PROJECT["requires-python"].removeprefix(">=")
    results = []
    for python, interpreter in found.items():
        sets = {"newest": [pinned("torch")]}
        if python == oldest:  # older releases have no wheels for later versions of Python
            sets = {"oldest": lower_bounds(), **sets}
        for label, constraints in sets.items():
            if options.only in (None, label):
                result = check(python, interpreter, label, constraints, options)
                results.append((python, label, *result))

    print()
    for python, label, passed, summary in results:
        print(f"{'passed' if passed else 'FAILED'}  Python {python}, {label}: {summary}")
    sys.exit(not results or not all(passed for _, _, passed, _ in results))


if __name__ == "__main__":
    main()
