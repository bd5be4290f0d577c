"""Mutation tests: which small changes of a module does no test notice?

For each module, cosmic-ray makes one change at a time (another operator, number, comparison or
branch) in a copy of the project, and the tests of that module alone run, up to the first failure,
each time in a fork of this process, which has imported the libraries. Prints the share of changes
that made a test fail, and each change that did not. With `--most`, a part of the changes of each
module is drawn, always the same.

    python benchmarks/mutants.py masking losses [--most 50]

A change takes about half a second of processor time, all 2,000 of them some twenty minutes. Needs
a system with forks.
"""

import argparse
import compileall
import difflib
import gc
import os
import random
import re
import resource
import shutil
import sys
import tempfile
from pathlib import Path

import hypothesis.extra.numpy  # noqa: F401, so that forks need not import it
import pandas  # noqa: F401
import pytest
import scipy.stats  # noqa: F401
import torch
from cosmic_ray.ast import ast_nodes, get_ast
from cosmic_ray.mutating import mutate_code
from cosmic_ray.plugins import get_operator, operator_names

ROOT = Path(__file__).parents[1]
PACKAGE = "sklearn_stndt"
# module, and the test files that must notice a change of it
MODULES = {
    "masking": ("network/masking.py", ["test_masking.py"]),
    "losses": ("network/losses.py", ["test_losses.py"]),
    "likelihood": ("network/likelihood.py", ["test_likelihood.py"]),
    "cutting": ("windows/cutting.py", ["test_windows.py"]),
    "segments": ("windows/segments.py", ["test_windows.py"]),
    "bits": ("metrics/bits.py", ["test_metrics.py", "test_metrics_hidden.py"]),
    "likelihoods": ("metrics/likelihoods.py", ["test_metrics_likelihoods.py"]),
    "structure": ("metrics/structure.py", ["test_metrics_structure.py"]),
    "decoding": ("metrics/decoding.py", ["test_metrics_decoding.py"]),
    "few_shot": ("metrics/few_shot.py", ["test_metrics_few_shot.py"]),
}
# types in annotations are not run; of many operators that fail alike, a few are enough
EXCLUDED = re.compile(
    "core/(ReplaceBinaryOperator_BitOr_.*"
    "|ReplaceBinaryOperator_.*_(FloorDiv|Mod|Pow|RShift|LShift|BitAnd|BitOr|BitXor)"
    "|ReplaceComparisonOperator_.*(Is|IsNot|In)"
    "|RemoveDecorator)"
)
PATIENCE = 5  # times the processor time of tests without a change, after which they hang


def import_libraries():
    """Import all that the package and its tests import, but not the package.

    Forks then import only the package, which is what is changed.
    """
    from sklearn_stndt import BaggingEnsemble, STNDTEstimator, datasets, metrics  # noqa: F401

    torch.testing.assert_close(torch.ones(1), torch.ones(1))  # imports much at its first call
    for name in list(sys.modules):
        if name.partition(".")[0] == PACKAGE:
            del sys.modules[name]
    gc.collect()
    gc.freeze()  # or each fork would go through all objects of the libraries


def copy_project(folder):
    kept = shutil.ignore_patterns(".*", "docs", "__pycache__", "*.egg-info")
    shutil.copytree(ROOT, folder, ignore=kept, dirs_exist_ok=True)
    compileall.compile_dir(folder / PACKAGE, quiet=2)


def possible_changes(source):
    """Pairs of an operator and the number of its occurrence in the source."""
    tree = get_ast(source)
    changes = []
    for name in sorted(operator_names()):
        kind = get_operator(name)
        if EXCLUDED.fullmatch(name) or kind.arguments():
            continue
        operator = kind()
        n = sum(1 for node in ast_nodes(tree) for _ in operator.mutation_positions(node))
        changes += [(name, occurrence) for occurrence in range(n)]
    return changes


def pass_tests(folder, tests, seconds):
    """Run tests in a fork; return whether they pass, and the seconds of processor time."""
    child = os.fork()
    if not child:
        resource.setrlimit(resource.RLIMIT_CPU, (int(seconds), int(seconds)))
        silent = os.open(os.devnull, os.O_WRONLY)
        os.dup2(silent, 1)
        os.dup2(silent, 2)
        os.chdir(folder)
        sys.path.insert(0, str(folder))
        sys.dont_write_bytecode = True  # the time of a file is too coarse to tell changes apart
        imported = "ignore::pytest.PytestAssertRewriteWarning"  # of plugins that are there already
        arguments = ["-x", "-q", "-p", "no:cacheprovider", "-W", imported]
        arguments += [f"tests/{test}" for test in tests]
        os._exit(int(pytest.main(arguments)))
    _, status, usage = os.wait4(child, 0)
    return status == 0, usage.ru_utime + usage.ru_stime


def mutate(name, folder, most=None):
    """Return the numbers of possible, of tried and of noticed changes, and the unnoticed ones."""
    module, tests = MODULES[name]
    copy_project(folder)
    path = folder / PACKAGE / module
    for compiled in (path.parent / "__pycache__").glob(f"{path.stem}.*"):
        compiled.unlink()
    source = path.read_text(encoding="utf-8")
    passed, seconds = pass_tests(folder, tests, 3600)
    if not passed:
        raise RuntimeError(f"The tests of {module} fail without a change.")
    possible = possible_changes(source)
    chosen = (
        possible if most is None else random.Random(0).sample(possible, min(most, len(possible)))
    )
    survivors = []
    for operator, occurrence in chosen:
        changed = mutate_code(source, get_operator(operator)(), occurrence)
        path.write_text(changed, encoding="utf-8")
        if pass_tests(folder, tests, PATIENCE * seconds + 3)[0]:
            lines = difflib.unified_diff(
                source.splitlines(), changed.splitlines(), n=0, lineterm=""
            )
            survivors.append((operator, list(lines)[2:]))
    return len(possible), len(chosen), len(chosen) - len(survivors), survivors


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("modules", nargs="+", choices=MODULES, help="which modules")
    parser.add_argument("--most", type=int, help="changes of a module that are tried; default: all")
    args = parser.parse_args()
    torch.set_num_threads(1)  # threads would not survive a fork
    import_libraries()
    for name in args.modules:
        with tempfile.TemporaryDirectory() as folder:
            n_possible, n_tried, n_killed, survivors = mutate(name, Path(folder), args.most)
        share = n_killed / n_tried if n_tried else 1
        print(
            f"\n{MODULES[name][0]}: {n_killed} of {n_tried} changes noticed ({share:.0%}), of "
            f"{n_possible} possible ones"
        )
        for operator, diff in survivors:
            print(f"\n{operator}", *diff, sep="\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
