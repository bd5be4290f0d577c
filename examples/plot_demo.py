"""
Four estimates of firing rates compared
=======================================

How close are spike counts, smoothed counts and inferred rates to the true rates? How well do they
predict hidden entries, and how well can hand velocity be decoded from them? The reaches are
generated, so the true rates are known. This script saves ``demo.png`` in the current folder.
"""

# %%
# Reaches to eight targets: 60 neurons in trials of one second, in bins of 20 ms. Nothing below is
# fitted to the test trials.
import time
from itertools import product

import matplotlib.pyplot as plt
import numpy as np
from scipy.ndimage import gaussian_filter1d
from sklearn.linear_model import Ridge
from sklearn.metrics import r2_score
from sklearn.model_selection import GridSearchCV

from sklearn_stndt import BaggingEnsemble, BinwiseRegressor, STNDTEstimator
from sklearn_stndt.datasets import make_reaches
from sklearn_stndt.metrics import bits_per_spike

data = make_reaches(n_trials=180, random_state=0)
n_trials, n_bins, n_neurons = data.spikes.shape
train, test = np.arange(100), np.arange(100, n_trials)

# %%
# **Hidden entries.** A method could predict visible spikes perfectly by copying them. So a fifth of
# the entries is hidden (NaN) and their rates are inferred from all others; this is repeated five
# times, until each entry was hidden once. :meth:`~sklearn_stndt.STNDTEstimator.score` uses the same
# masks; here they are applied to all methods.


def infer_hidden(infer, spikes, n_folds=5):
    """Infer each rate while its own spike count is hidden."""
    folds = np.random.RandomState(0).randint(n_folds, size=spikes.shape, dtype=np.uint8)
    rates = np.empty(spikes.shape)
    for fold in range(n_folds):
        hidden = folds == fold
        rates[hidden] = infer(np.where(hidden, np.nan, spikes))[hidden]
    return rates


# %%
# **Raw counts** need no training. A hidden count is replaced by the neuron's mean.
mean_counts = data.spikes[train].mean(axis=(0, 1))


def raw_counts(spikes):
    return np.where(np.isnan(spikes), mean_counts, spikes)


# %%
# **Gaussian smoothing** averages the visible counts around a bin and, with a weight, the neuron's
# mean: otherwise a neuron without nearby spikes would get a rate of 0, with a likelihood of 0 if it
# does fire. Width and weight are chosen on hidden entries of validation trials.


def smooth(spikes, width, weight):
    visible = ~np.isnan(spikes)
    counts = gaussian_filter1d(np.where(visible, spikes, 0.0), width, axis=1, mode="constant")
    n_visible = gaussian_filter1d(visible.astype(float), width, axis=1, mode="constant")
    return (counts + weight * mean_counts) / (n_visible + weight)


def validation_score(width, weight):
    validation = data.spikes[train[::4]].astype(float)
    rates = infer_hidden(lambda spikes: smooth(spikes, width, weight), validation)
    return bits_per_spike(validation, rates)


width, weight = max(
    product([1, 1.5, 2, 3, 4, 6, 8], [0.1, 0.3, 1, 3, 10]), key=lambda pair: validation_score(*pair)
)

# %%
# **STNDT**, and an **ensemble of five** that differ only in their random seeds, trained two at a
# time.
print("Training one network, then an ensemble of five: a minute or two.", flush=True)
start = time.perf_counter()
stndt = STNDTEstimator(random_state=0).fit(data.spikes[train])
stndt_seconds = time.perf_counter() - start

start = time.perf_counter()
ensemble = BaggingEnsemble(STNDTEstimator(), n_estimators=5, n_jobs=2, random_state=0)
ensemble.fit(data.spikes[train])
ensemble_seconds = time.perf_counter() - start

methods = {
    "raw counts": (raw_counts, 0.0),
    "Gaussian smoothing": (lambda spikes: smooth(spikes, width, weight), 0.0),
    "STNDT": (stndt.transform, stndt_seconds),
    "ensemble of 5": (ensemble.transform, ensemble_seconds),
}

# %%
# **Velocity** is decoded by ridge regression from the rates of the same bin. The penalty is chosen
# by cross-validation over training trials.
alphas = np.logspace(-4, 3, 8)
spikes = data.spikes.astype(float)
rates, velocity = {}, {}

print(f"\n{'':20}{'R2 of rates':>13}{'bits per spike':>17}{'R2 of velocity':>17}{'training':>12}")
for name, (infer, seconds) in methods.items():
    rates[name] = infer(spikes)
    r2_rates = r2_score(
        data.rates[test].reshape(-1, n_neurons), rates[name][test].reshape(-1, n_neurons)
    )
    bits = bits_per_spike(spikes[test], infer_hidden(infer, spikes[test]))
    decoder = GridSearchCV(BinwiseRegressor(Ridge()), {"estimator__alpha": alphas})
    decoder.fit(rates[name][train], data.velocity[train])
    velocity[name] = decoder.predict(rates[name][test])
    r2_velocity = decoder.score(rates[name][test], data.velocity[test])
    print(f"{name:20}{r2_rates:13.3f}{bits:17.3f}{r2_velocity:17.3f}{seconds:10.0f} s", flush=True)
print(
    f"""
{len(test)} test trials that nothing was fitted to. In each column, higher is better.
R2 of rates      compared with the true rates: 1 if equal, 0 for each neuron's mean rate
bits per spike   how well hidden counts are predicted: 0 for each neuron's mean rate
R2 of velocity   how well hand velocity is decoded from the rates
Gaussian smoothing was tuned on training trials: {1000 * width * data.bin_width:g} ms wide."""
)

# %%
# Rates of three neurons, hand velocity and hand paths, in test trials.
styles = {
    "truth": {"color": "black", "ls": "-", "lw": 2.5, "alpha": 0.35},
    "Gaussian smoothing": {"color": "#E69F00", "ls": "--", "lw": 1.5},
    "STNDT": {"color": "#0072B2", "ls": "-", "lw": 1.5},
}
bin_centres = (np.arange(n_bins) + 0.5) * data.bin_width
courses = {"truth": data.rates, **rates}
velocities = {"truth": data.velocity[test], **velocity}

fig, axes = plt.subplots(2, 3, figsize=(8, 5), layout="constrained")
neurons = np.argsort(-data.mean_rates)[[0, 8, 20]]
for ax, neuron in zip(axes[0], neurons, strict=True):
    for name, style in styles.items():
        ax.plot(bin_centres, courses[name][test[0], :, neuron] / data.bin_width, **style)
    spike_bins = np.flatnonzero(data.spikes[test[0], :, neuron])
    ax.plot(bin_centres[spike_bins], 0 * spike_bins, "|", color="0.4", ms=8, clip_on=False)
    ax.set(title=f"neuron {neuron}", xlabel="time (s)", ylim=(0, None), xticks=[0, 0.5, 1])
axes[0, 0].set_ylabel("rate (Hz)")
for axis, ax in enumerate(axes[1, :2]):
    for name, style in styles.items():
        ax.plot(bin_centres, velocities[name][0, :, axis], label=name, **style)
    ax.set(title=f"hand, {'xy'[axis]}", xlabel="time (s)", xticks=[0, 0.5, 1])
axes[1, 0].sharey(axes[1, 1])
axes[1, 0].autoscale()
axes[1, 0].set_ylabel("velocity (cm/s)")
one_a_target = np.unique(data.conditions[test], return_index=True)[1]
for name, style in styles.items():
    paths = np.cumsum(velocities[name][one_a_target], axis=1) * data.bin_width
    axes[1, 2].plot(*paths.transpose(2, 1, 0), **style)
axes[1, 2].set(title="a reach to each target", xlabel="x (cm)", ylabel="y (cm)", aspect="equal")
handles, labels = axes[1, 0].get_legend_handles_labels()
fig.legend(handles, labels, loc="outside upper center", ncols=3, frameon=False)
fig.savefig("demo.png", dpi=150)
print(
    """
demo.png shows one test trial: the rates of three neurons (the ticks are the spikes), hand velocity,
and a reach to each target. Grey is the truth, orange Gaussian smoothing, blue STNDT.

To go on with your own data: docs/guide/from_counts.md begins with an array of spike counts, and the
pages beside it with NWB, MATLAB and pynapple files. README.md has ten lines to copy, and
.venv/bin/python is the Python that runs them. "make docs" builds the pages."""
)
plt.show()
