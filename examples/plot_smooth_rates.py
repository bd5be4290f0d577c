"""
Firing rates of single trials
=============================

In a single trial a neuron fires only a few spikes, from which its rate cannot be estimated well.
Averaging over trials removes all variability between trials. Smoothing in time removes all fast
changes. :class:`~sklearn_stndt.STNDTEstimator` uses all neurons and all bins of the trial, and
infers rates that best predict hidden spikes.
"""

# %%
# The data
# --------
# Generated reaches: trials of one second in bins of 20 ms, 60 neurons. Their true rates are known.
# If the environment variable ``STNDT_DATA`` names a folder with ``datahigh/datahigh_20ms.npz``,
# a recording of monkey motor cortex is used instead: 61 units, 112 reaches.
#
# Trials are one array of spike counts, ``(n_trials, n_bins, n_neurons)``. A fifth of the trials is
# set aside for testing.
import os
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from scipy.ndimage import gaussian_filter1d
from sklearn.metrics import r2_score
from sklearn.model_selection import train_test_split

from sklearn_stndt import STNDTEstimator
from sklearn_stndt.datasets import make_reaches
from sklearn_stndt.metrics import bits_per_spike

bin_width = 0.02  # s
if "STNDT_DATA" in os.environ:
    recording = np.load(Path(os.environ["STNDT_DATA"]) / "datahigh" / "datahigh_20ms.npz")
    spikes, true_rates = recording["ex2_spikes_first1s"], None
else:
    data = make_reaches(n_trials=125, random_state=0)
    spikes, true_rates = data.spikes, data.rates
train, test = train_test_split(np.arange(len(spikes)), test_size=0.2, random_state=0)

# %%
# Infer rates
# -----------
# Rates have the shape and unit of the counts, spikes per bin; divide by the bin width for Hz.
# Without test trials, use ``rates = estimator.fit_transform(spikes)``.
estimator = STNDTEstimator(random_state=0)
estimator.fit(spikes[train])
rates = estimator.transform(spikes[test])

# %%
# How good are they?
# ------------------
# Rates must be scored on spikes that were hidden when they were inferred. So ``score`` hides
# entries, infers their rates from all others, and returns the *bits per spike* by which these
# rates are better than each neuron's mean. In all methods, hidden entries are NaN.
#
# Gaussian smoothing is scored in the same way. It averages the visible entries and, with a small
# weight, the neuron's mean, which keeps the rate above 0 where there are no spikes nearby. The
# width and the weight are the best ones for the training trials.
mean_counts = spikes[train].mean(axis=(0, 1))


def smooth(counts, width, weight):
    """Gaussian average of the visible counts and, with a weight, of the neuron's mean."""
    visible = ~np.isnan(counts)
    total = gaussian_filter1d(np.where(visible, counts, 0.0), width, axis=1, mode="constant")
    n_visible = gaussian_filter1d(visible.astype(float), width, axis=1, mode="constant")
    return (total + weight * mean_counts) / (n_visible + weight)


def score_smoothing(counts, width, weight):
    """Bits per spike, every entry hidden once in five masks, as the estimator scores itself."""
    masks = np.random.RandomState(0).randint(5, size=counts.shape, dtype=np.uint8)
    inferred = np.empty(counts.shape)
    for mask in range(5):
        hidden = masks == mask
        inferred[hidden] = smooth(np.where(hidden, np.nan, counts), width, weight)[hidden]
    return bits_per_spike(counts, inferred)


candidates = [(width, weight) for width in (1, 2, 3, 4, 6, 8) for weight in (0.1, 0.3, 1, 3, 10)]
width, weight = max(candidates, key=lambda pair: score_smoothing(spikes[train], *pair))
smoothed = smooth(spikes[test], width, weight)

print(f"Gaussian: {1000 * width * bin_width:g} ms wide, weight of the mean {weight:g}")
print("Bits per spike of hidden entries, test trials")
print(f"    Gaussian smoothing  {score_smoothing(spikes[test], width, weight):.3f}")
print(f"    STNDT               {estimator.score(spikes[test]):.3f}")
if true_rates is not None:
    n_neurons = spikes.shape[-1]
    truth = true_rates[test].reshape(-1, n_neurons)
    print("R2 of rates (true rates), mean over neurons, test trials")
    print(f"    Gaussian smoothing  {r2_score(truth, smoothed.reshape(-1, n_neurons)):.3f}")
    print(f"    STNDT               {r2_score(truth, rates.reshape(-1, n_neurons)):.3f}")

# %%
# One trial
# ---------
# Spikes of the population and inferred rates, relative to the highest rate of each neuron. Neurons
# are sorted by the time of the highest rate.
trial = 0
n_bins = spikes.shape[1]
order = np.argsort(rates[trial].argmax(axis=0))
trial_spikes = spikes[test[trial]][:, order]
relative = rates[trial][:, order] / rates[trial][:, order].max(axis=0)
extent = (0, n_bins * bin_width, len(order), 0)

fig, axes = plt.subplots(1, 2, figsize=(7, 3.4), sharey=True, layout="constrained")
image = axes[0].imshow(
    trial_spikes.T, aspect="auto", cmap="gray_r", extent=extent, interpolation="none"
)
fig.colorbar(image, ax=axes[0], label="spikes per bin", ticks=range(trial_spikes.max() + 1))
image = axes[1].imshow(relative.T, aspect="auto", cmap="viridis", extent=extent)
fig.colorbar(image, ax=axes[1], label="inferred rate / its maximum")
axes[0].set(title="spikes", xlabel="time (s)", ylabel="neuron, sorted")
axes[1].set(title="STNDT", xlabel="time (s)")

# %%
# Three neurons (columns), with a high, a medium and a low firing rate, in three trials (rows).
# Ticks are spikes.
time = (np.arange(n_bins) + 0.5) * bin_width
neurons = np.argsort(-mean_counts)[[0, 8, 20]]

fig, axes = plt.subplots(3, 3, figsize=(7, 5), sharex=True, sharey="col", layout="constrained")
for trial in range(3):
    for ax, neuron in zip(axes[trial], neurons, strict=True):
        if true_rates is not None:
            true_course = true_rates[test[trial], :, neuron] / bin_width
            ax.plot(time, true_course, color="black", lw=2.5, alpha=0.35, label="truth")
        smooth_course = smoothed[trial, :, neuron] / bin_width
        ax.plot(time, smooth_course, color="#E69F00", lw=1.5, ls="--", label="Gaussian smoothing")
        ax.plot(time, rates[trial, :, neuron] / bin_width, color="#0072B2", lw=1.5, label="STNDT")
        with_spikes = time[spikes[test[trial], :, neuron] > 0]
        ax.plot(with_spikes, np.zeros_like(with_spikes), "|", color="0.3", ms=8, clip_on=False)
    axes[trial, 0].set_ylabel("rate (Hz)")
for ax, neuron in zip(axes[0], neurons, strict=True):
    ax.set(title=f"neuron {neuron}", ylim=(0, None))
for ax in axes[-1]:
    ax.set_xlabel("time (s)")
handles, labels = axes[0, 0].get_legend_handles_labels()
fig.legend(handles, labels, loc="outside upper center", ncols=3, frameon=False)
plt.show()
