"""Fit ensembles in separate processes, which tests kill or interrupt.

    python fit_with_checkpoints.py '[{"log": ..., "out": ..., "params": ..., "kill": ...}, ...]'

Several fits run one after the other, each in a fork of this process, which saves the imports;
their exit codes are printed. Each fit of a member adds a line to the log when it starts. `kill`
is a pair: after how many members, and at what moment after that, the process kills itself with
SIGKILL. While a file `<log>.hold` exists, members after the second one start and then wait to be
killed; while a file `<log>.endless` exists, members do not end, whatever happens to the process.
"""

import json
import os
import signal
import sys
import time

import numpy as np
from scipy.stats import uniform
from skorch.callbacks import Callback
from subprocesses import log_begin, wait_to_be_killed

from sklearn_stndt import BaggingEnsemble, STNDTEstimator
from sklearn_stndt.datasets import make_reaches


def make_ensemble(**params):
    """Make the ensemble that the process fits."""
    base = STNDTEstimator(d_model=8, n_heads=2, max_epochs=6)
    params = {"n_estimators": 7, "n_best": "auto", "random_state": 0} | params
    space = {"dropout": uniform(0, 0.4), "context": [None, (4, 4)]}
    return BaggingEnsemble(base, param_distributions=space, **params)


def make_spikes():
    """Counts of 24 trials, 20 bins, 12 neurons."""
    return make_reaches(n_trials=24, n_bins=20, n_neurons=12, random_state=0).spikes


class Log(Callback):
    """Logs each member that starts, and lets late ones wait."""

    def __init__(self, path):
        self.path = path

    def on_train_begin(self, net, **kwargs):
        self.number_ = log_begin(self.path)

    def on_epoch_end(self, net, **kwargs):
        while os.path.exists(f"{self.path}.endless"):
            time.sleep(0.01)
        if self.number_ > 2 and os.path.exists(f"{self.path}.hold"):
            wait_to_be_killed()


def die():
    os.kill(os.getpid(), signal.SIGKILL)


def die_at(n_finished, moment):
    """Let the process kill itself when this number of members is finished."""
    from sklearn_stndt.ensemble import checkpoints

    replace, n_replaced = os.replace, []

    def replace_and_die(source, target):
        of_member = os.path.basename(target).startswith("member-")
        if of_member and moment == "half written" and len(n_replaced) == n_finished:
            with open(source, "r+b") as file:
                file.truncate(1000)
            die()
        replace(source, target)
        if of_member:
            n_replaced.append(target)
            if moment == "just written" and len(n_replaced) == n_finished:
                die()

    checkpoints.os.replace = replace_and_die
    if moment == "in training":
        Log.on_epoch_begin = lambda self, net, **kwargs: (
            die() if len(n_replaced) == n_finished and len(net.history) == 3 else None
        )


def fit(options):
    """Fit an ensemble and save its results."""
    if options.get("kill"):
        die_at(*options["kill"])
    ensemble = make_ensemble(**options.get("params", {}))
    log = Log(options["log"])
    ensemble.set_params(estimator__callbacks=[log])
    spikes = make_spikes()
    ensemble.fit(spikes)
    np.savez(
        options["out"],
        rates=ensemble.transform(spikes),
        scores=ensemble.scores_,
        selected=ensemble.selected_,
    )


def main():
    fits = json.loads(sys.argv[1])
    if len(fits) == 1:
        fit(fits[0])
        return
    codes = []
    for options in fits:
        child = os.fork()
        if child == 0:
            fit(options)
            os._exit(0)
        codes.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    print(json.dumps(codes))


if __name__ == "__main__":
    main()
