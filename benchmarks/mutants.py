"""Mutation tests: which small changes of a module does no test notice?

For each module, cosmic-ray makes one change at a time (another operator, number, comparison or
branch) in a copy of the project, and runs the tests of that module alone. Prints the share of
changes that made a test fail, and each change that did not. With `--most`, a part of the changes of
each module is drawn, always the same.

    python benchmarks/mutants.py masking losses [--most 50] [--python .venv/bin/python]
"""

import argparse
import json
import os
import random
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


def skip_all_but(most, session):
    """Leave a random part of the changes of a session; return how many there were."""
    from cosmic_ray.work_db import WorkDB, use_db
    from cosmic_ray.work_item import WorkerOutcome, WorkResult

    with use_db(session, WorkDB.Mode.open) as db:
        left = sorted(item.job_id for item in db.pending_work_items)
        order = {job: i for i, job in enumerate(item.job_id for item in db.work_items)}
        left.sort(key=order.get)  # in the order of the source: names are drawn anew each time
        chosen = set(left if most is None else random.Random(0).sample(left, min(most, len(left))))
        for job in left:
            if job not in chosen:
                db.set_result(job, WorkResult(worker_outcome=WorkerOutcome.SKIPPED))
    return len(left)


def mutate(name, folder, python, most=None):
    """Return the numbers of possible, of tried and of noticed changes, and the unnoticed ones."""
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
    n_possible = skip_all_but(most, str(folder / "mutants.sqlite"))
    run(folder, ray, "exec", "mutants.toml", "mutants.sqlite")
    rows = [json.loads(line) for line in run(folder, ray, "dump", "mutants.sqlite").splitlines()]
    done = [(work, result) for work, result in rows if result["worker_outcome"] != "skipped"]
    survivors = [
        (work["mutations"][0], result["diff"])
        for work, result in done
        if result["test_outcome"] == "survived"
    ]
    return n_possible, len(done), len(done) - len(survivors), survivors


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("modules", nargs="+", choices=MODULES, help="which modules")
    parser.add_argument("--most", type=int, help="changes of a module that are tried; default: all")
    parser.add_argument("--python", default=sys.executable, help="interpreter that runs the tests")
    args = parser.parse_args()
    for name in args.modules:
        with tempfile.TemporaryDirectory() as folder:
            n_possible, n_tried, n_killed, survivors = mutate(
                name, Path(folder), args.python, args.most
            )
        share = n_killed / n_tried if n_tried else 1
        print(
            f"\n{MODULES[name][0]}: {n_killed} of {n_tried} changes noticed ({share:.0%}), of "
            f"{n_possible} possible ones"
        )
        for change, diff in survivors:
            print(f"\nline {change['start_pos'][0]}, {change['operator_name']}")
            print("\n".join(line for line in diff.splitlines() if line[:1] in "+-")[:600])
        sys.stdout.flush()


if __name__ == "__main__":
    main()
