"""The seed determines the rates, bit for bit."""

import hashlib
import os
from pathlib import Path

import joblib
import numpy as np
import pytest
import torch
from numpy.testing import assert_array_equal
from sklearn.utils import check_random_state
from subprocesses import output_of

import sklearn_stndt


def digest(rates):
    return hashlib.sha256(np.ascontiguousarray(rates).tobytes()).hexdigest()


def test_the_seed_determines_the_rates(small, fitted, spikes):
    rates = fitted.transform(spikes)
    again = small()
    for _ in range(2):  # also if the estimator was fitted before
        assert_array_equal(again.fit(spikes).transform(spikes), rates)
    assert not np.array_equal(small(random_state=1).fit_transform(spikes), rates)
    instances = [small(random_state=np.random.RandomState(0)) for _ in range(2)]
    first, second = (estimator.fit_transform(spikes) for estimator in instances)
    assert_array_equal(first, second)
    assert not np.array_equal(instances[0].fit_transform(spikes), first)  # it has advanced


def test_a_new_process_gives_identical_rates(spikes, fitted):
    script = """
import hashlib, numpy as np
from sklearn_stndt import STNDTEstimator
from sklearn_stndt.datasets import make_reaches
spikes = make_reaches(n_trials=24, n_bins=20, n_neurons=12, random_state=0).spikes.astype(float)
estimator = STNDTEstimator(d_model=8, n_heads=2, max_epochs=3, random_state=0)
print(hashlib.sha256(estimator.fit_transform(spikes).tobytes()).hexdigest())
"""
    package = Path(sklearn_stndt.__file__).parents[1]
    environment = os.environ | {"PYTHONPATH": str(package), "PYTHONHASHSEED": "7"}
    assert output_of("-c", script, env=environment).strip() == digest(fitted.transform(spikes))


def test_threads_of_joblib_give_identical_rates(small, spikes):
    one_by_one = [small(random_state=seed).fit_transform(spikes) for seed in range(3)]
    with joblib.parallel_config("threading", n_jobs=3):
        at_once = joblib.Parallel()(
            joblib.delayed(small(random_state=seed).fit_transform)(spikes) for seed in range(3)
        )
    assert_array_equal(at_once, one_by_one)


@pytest.mark.parametrize("call", ["fit", "transform", "score", "forecast"])
def test_global_generators_and_thread_counts_are_unchanged(small, spikes, call):
    estimator = small(forecast_bins=2).fit(spikes)
    n_threads, global_numpy = torch.get_num_threads(), check_random_state(None)
    states = torch.get_rng_state(), global_numpy.get_state()
    torch.set_num_threads(2)
    torch.manual_seed(12345)  # a state that no training ends in
    global_numpy.seed(12345)
    try:
        before = torch.get_rng_state(), global_numpy.get_state()
        estimator.forecast(spikes, 2) if call == "forecast" else getattr(estimator, call)(spikes)
        assert_array_equal(torch.get_rng_state(), before[0])
        for value, value_before in zip(global_numpy.get_state(), before[1], strict=True):
            assert_array_equal(value, value_before)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(n_threads)
        torch.set_rng_state(states[0])
        global_numpy.set_state(states[1])
