"""Mutation tests: which small changes of a module does no test notice?

For each module, cosmic-ray makes one change at a time (another operator, number, comparison or
branch) in a copy of the project, and runs the tests of that module alone. Prints the share of
changes that made a test fail, and each change that did not.

    python benchmarks/mutants.py masking losses [--python .venv/bin/python]
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGE = "sklearn_stndt"
# module, and the test files that must notice a change of it
MODULES = {
    "masking": ("network/masking.py", ["test_masking.py"]),
    "losses": ("network/losses.py", ["test_losses.py"]),
    "likelihood": ("network/likelihood.py", ["test_likelihood.py", "test_losses.py"]),
    "cutting": ("windows/cutting.py", ["test_windows.py"]),
    "segments": ("windows/segments.py", ["test_windows.py"]),
    "bits": ("metrics/bits.py", ["test_metrics.py", "test_metrics_hidden.py"]),
    "structure": ("metrics/structure.py", ["test_metrics_structure.py"]),
    "decoding": ("metrics/decoding.py", ["test_metrics.py", "test_metrics_structure.py"]),
}
CONFIG = """
[cosmic-ray]
module-path = "{module}"
timeout = 120.0
excluded-modules = []
test-command = "{python} -m pytest -x -q -p no:cacheprovider {tests}"

[cosmic-ray.distributor]
name = "local"

[cosmic-ray.filters.operators-filter]
# types in annotations are not run; of many operators that fail alike, a few are enough
exclude-operators = [
    "core/ReplaceBinaryOperator_BitOr_.*",
    "core/ReplaceBinaryOperator_.*_(FloorDiv|Mod|Pow|RShift|LShift|BitAnd|BitOr|BitXor)",
    "core/ReplaceComparisonOperator_.*(Is|IsNot|In)$",
    "core/RemoveDecorator",
]
"""


def run(folder, *command):
    environment = os.environ | {"PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(
        command, cwd=folder, env=environment, check=True, capture_output=True, text=True
    ).stdout


def copy_project(folder):
    kept = shutil.ignore_patterns(".*", "docs", "__pycache__", "*.egg-info")
    shutil.copytree(ROOT, folder, ignore=kept, dirs_exist_ok=True)


def mutate(name, folder, python):
    """Return the numbers of changes and of noticed ones, and the changes that were not noticed."""
    module, tests = MODULES[name]
    copy_project(folder)
    config = CONFIG.format(
        module=f"{PACKAGE}/{module}",
        python=python,
        tests=" ".join(f"tests/{test}" for test in tests),
    )
    (folder / "mutants.toml").write_text(config)
    tools = Path(sys.executable).parent
    ray = str(tools / "cosmic-ray")
    run(folder, ray, "baseline", "mutants.toml")
    run(folder, ray, "init", "mutants.toml", "mutants.sqlite")
    run(folder, str(tools / "cr-filter-operators"), "mutants.sqlite", "mutants.toml")
    run(folder, ray, "exec", "mutants.toml", "mutants.sqlite")
    rows = [json.loads(line) for line in run(folder, ray, "dump", "mutants.sqlite").splitlines()]
    done = [(work, result) for work, result in rows if result["worker_outcome"] != "skipped"]
    survivors = [
        (work["mutations"][0], result["diff"])
        for work, result in done
        if result["test_outcome"] == "survived"
    ]
    return len(done), len(done) - len(survivors), survivors


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("modules", nargs="+", choices=MODULES, help="which modules")
    parser.add_argument("--python", default=sys.executable, help="interpreter that runs the tests")
    args = parser.parse_args()
    for name in args.modules:
        with tempfile.TemporaryDirectory() as folder:
            n_all, n_killed, survivors = mutate(name, Path(folder), args.python)
        share = n_killed / n_all if n_all else 1
        print(f"\n{MODULES[name][0]}: {n_killed} of {n_all} changes noticed ({share:.0%})")
        for change, diff in survivors:
            print(f"\nline {change['start_pos'][0]}, {change['operator_name']}")
            print("\n".join(line for line in diff.splitlines() if line[:1] in "+-")[:600])
        sys.stdout.flush()


if __name__ == "__main__":
    main()
