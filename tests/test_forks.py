"""Forked processes work, or refuse in words; none of them hangs."""

import json
import os
import sys

import pytest
from subprocesses import output_of

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="forks of POSIX")

SCRIPT = """
import json, os, sys, threading, warnings
import torch
from skorch.callbacks import Callback
from sklearn_stndt import STNDTEstimator
from sklearn_stndt.datasets import make_reaches
from sklearn_stndt.network.isolation import isolated_torch

spikes = make_reaches(n_trials=24, n_bins=20, n_neurons=12, random_state=0).spikes

def make(**params):
    params = {"d_model": 8, "n_heads": 2, "max_epochs": 2, "random_state": 0} | params
    return STNDTEstimator(**params)

def in_a_fork(function):
    # returns what a child has returned, or the text of its error, and its warnings
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                result = function()
        except Exception as error:
            result = str(error)
        os.write(writing, json.dumps([result, [str(one.message) for one in caught]]).encode())
        os._exit(0)
    os.close(writing)
    os.waitpid(child, 0)
    with os.fdopen(reading) as pipe:
        return json.load(pipe)

def fit_and_score():
    return make().fit(spikes).score(spikes)

def multiply():
    with isolated_torch(2, 0):  # large enough for threads to share the work
        return [torch.get_num_threads(), float((torch.rand(600, 600) @ torch.rand(600, 600)).sum())]

class Meet(Callback):
    # waits inside of the fit
    def on_train_begin(self, net, **kwargs):
        inside.set()
        go_on.wait()

class Fork(Callback):
    def on_train_begin(self, net, **kwargs):
        results["forked by the fit"] = in_a_fork(fit_and_score)

results = {"in the parent": fit_and_score()}
results["before threads"] = in_a_fork(multiply)
multiply()
results["after threads"] = in_a_fork(multiply)
results["idle"] = in_a_fork(fit_and_score)
inside, go_on = threading.Event(), threading.Event()
thread = threading.Thread(target=make(callbacks=[Meet()]).fit, args=(spikes,))
thread.start()
inside.wait()
results["while a thread fits"] = in_a_fork(fit_and_score)
go_on.set()
thread.join()
results["idle again"] = in_a_fork(fit_and_score)
make(callbacks=[Fork()]).fit(spikes)
print(json.dumps(results))
"""


@pytest.fixture(scope="module")
def results():
    environment = {
        "PYTHONPATH": os.pathsep.join(p for p in sys.path if p),
        "OMP_NUM_THREADS": "1",
        "OMP_WAIT_POLICY": "passive",
        "PYTHONWARNINGS": "ignore",  # Python 3.12 warns of forks of processes with threads
    }
    return json.loads(output_of("-c", SCRIPT, env=os.environ | environment))


@pytest.mark.parametrize("moment", ["idle", "idle again", "forked by the fit"])
def test_a_fork_fits_as_its_parent_does(results, moment):
    assert results[moment] == [results["in the parent"], []]


def test_a_fork_of_a_process_without_threads_uses_several(results):
    (n_threads, _), warned = results["before threads"]
    assert n_threads == 2
    assert not warned


def test_a_fork_of_a_process_with_threads_uses_one_and_warns(results):
    (n_threads, total), (warned,) = results["after threads"]
    assert n_threads == 1
    assert total == pytest.approx(results["before threads"][0][1])
    assert "n_threads=2: 1 is used" in warned
    assert "get_context('spawn')" in warned


def test_a_fork_refuses_to_fit_if_a_thread_of_its_parent_was_fitting(results):
    refused, _ = results["while a thread fits"]
    assert "forked while another thread of its parent was fitting" in refused
    assert "get_context('spawn')" in refused
