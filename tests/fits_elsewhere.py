"""Fit and infer on a stand-in device; print what went wrong, as JSON."""

import copy
import json
import sys
import tempfile
import traceback
import warnings
from collections import Counter
from pathlib import Path

from stand_in_device import DEVICE, WAITS, StandIn  # before anything uses torch

import numpy as np  # isort: skip
from sklearn_stndt import BaggingEnsemble, MultiSessionEstimator, STNDTEstimator, load, save
from sklearn_stndt.datasets import make_reaches
from sklearn_stndt.inspection import attention_maps, neuron_importance
from sklearn_stndt.streaming import RateStream

SPIKES = make_reaches(n_trials=12, n_bins=20, n_neurons=6, random_state=0).spikes.astype(np.float32)
LONG = SPIKES.reshape(-1, 6)[:50]
PARAMS = {
    "d_model": 8,
    "n_heads": 2,
    "n_layers": 2,
    "max_epochs": 2,
    "batch_size": 5,
    "random_state": 0,
}
FORMS = {
    "default": {},
    "held out": {"heldout_neurons": [1], "forecast_bins": 3},
    "published": {
        "d_model": None,
        "d_spatial": None,
        "spatial_layers": "all",
        "input_scaling": "counts",
        "token_ratio": 0.8,
        "random_ratio": 0.5,
        "contrastive_weight": 0.1,
        "optimizer": "adamw",
    },
    "causal": {"causal": True, "forecast_bins": 3},
    "causal in every layer": {"causal": True, "spatial_layers": "all", "stochastic_depth": 0.5},
    "negative binomial": {"likelihood": "negative_binomial"},
    "gaussian": {"likelihood": "gaussian", "heldout_neurons": [1]},
    "temporal": {"attention": "temporal", "context": (4, 1), "input_scaling": "standardized"},
}
# functions that may wait for the device, and how often for an epoch or a call
ONCE_A_BATCH = {"run_single_epoch"}  # of skorch, for the loss
AFTER_TRAINING = {
    "_has_finite_weights",
    "validation_step",
    "predict_hidden",
    "posterior_of",
    "choose_device",
    "of",
}


def network(**params):
    return STNDTEstimator(**(PARAMS | params))


def moved(fitted):
    """A copy on the device."""
    fitted = copy.deepcopy(fitted)
    fitted.net_.module_.to(DEVICE)
    fitted.net_.device = fitted.device_ = DEVICE
    return fitted


def fits(form):
    """Train on the device; it is waited for once a batch."""
    WAITS.clear()
    fitted = network(**form, device=DEVICE).fit(SPIKES)
    assert {p.device.type for p in fitted.net_.module_.parameters()} == {DEVICE}
    waits = Counter(place for _, place in WAITS)
    n_batches = sum(row["train_batch_count"] for row in fitted.history_)
    allowed = ONCE_A_BATCH | AFTER_TRAINING
    if form.get("contrastive_weight"):
        allowed = allowed | {"recorded"}
    if form.get("likelihood") == "negative_binomial":
        allowed = allowed | {"_rising"}  # which picks out counts above 1
    assert waits.keys() <= allowed, waits
    assert waits["run_single_epoch"] == n_batches, (waits, n_batches)
    assert np.isfinite(fitted.transform(SPIKES)).all()


def infers(form):
    """Rates, scores and maps are those of the CPU."""
    here = network(**form).fit(SPIKES)
    there = moved(here)
    here.net_.module_.smoothing.width.fill_(0.0)
    there.net_.module_.smoothing.width.fill_(0.0)
    for X in (SPIKES, LONG):
        np.testing.assert_allclose(there.transform(X), here.transform(X), rtol=1e-3, atol=1e-6)
    hidden = np.where(np.arange(20)[:, None] % 3 == 1, np.nan, SPIKES)
    np.testing.assert_allclose(
        there.transform(hidden), here.transform(hidden), rtol=1e-3, atol=1e-6
    )
    np.testing.assert_allclose(there.score(SPIKES), here.score(SPIKES), rtol=1e-3, atol=1e-6)
    if form.get("forecast_bins"):
        forecasts = there.forecast(SPIKES, 2), here.forecast(SPIKES, 2)
        np.testing.assert_allclose(*forecasts, rtol=1e-3, atol=1e-6)
    maps, expected = attention_maps(there, SPIKES), attention_maps(here, SPIKES)
    for kind in ("temporal", "spatial"):
        np.testing.assert_allclose(maps[kind], expected[kind], rtol=1e-3, atol=1e-6)
    importance = [
        neuron_importance(e, SPIKES, method="gradient", random_state=0) for e in (there, here)
    ]
    np.testing.assert_allclose(*importance, rtol=1e-3)
    if form.get("causal"):
        steps = [RateStream(one).step(SPIKES[0, 0]) for one in (there, here)]
        np.testing.assert_allclose(*steps, rtol=1e-3, atol=1e-6)
    for one in (here, there):
        one.net_.module_.smoothing.width.fill_(1.5)
    np.testing.assert_allclose(
        there.transform(SPIKES), here.transform(SPIKES), rtol=1e-3, atol=1e-6
    )


def saved():
    """A file of a network on the device is loaded on the CPU, with its rates."""
    here = network().fit(SPIKES)
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        save(moved(here), Path(folder) / "model.stndt")
        here_again = load(Path(folder) / "model.stndt")
    np.testing.assert_allclose(
        here_again.transform(SPIKES), here.transform(SPIKES), rtol=1e-3, atol=1e-6
    )


def adapted():
    core = network(device=DEVICE).fit(SPIKES)
    few = network(device=DEVICE, pretrained=core).fit(SPIKES[..., :4])
    assert np.isfinite(few.transform(SPIKES[..., :4])).all()


def several():
    sessions = [SPIKES, SPIKES[..., :4]]
    fitted = MultiSessionEstimator(network(device=DEVICE)).fit(sessions)
    assert all(np.isfinite(rates).all() for rates in fitted.transform(sessions))


def ensemble():
    fitted = BaggingEnsemble(network(device=DEVICE), 2, random_state=0).fit(SPIKES)
    assert np.isfinite(fitted.transform(SPIKES)).all()


def diverged():
    fitted = network(device=DEVICE, lr=1e3).fit(SPIKES)
    assert "diverged" in fitted.net_.diverged_
    assert np.isfinite(fitted.transform(SPIKES)).all()


CHECKS = {f"fit, {name}": lambda form=form: fits(form) for name, form in FORMS.items()}
CHECKS |= {f"infer, {name}": lambda form=form: infers(form) for name, form in FORMS.items()}
CHECKS |= {f.__name__: f for f in (saved, adapted, several, ensemble, diverged)}


def main():
    results = {}
    for name in sys.argv[1:] or CHECKS:
        try:
            with StandIn(), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                CHECKS[name]()
            results[name] = ""
        except Exception:
            results[name] = traceback.format_exc()
    print(json.dumps(results))


if __name__ == "__main__":
    main()
