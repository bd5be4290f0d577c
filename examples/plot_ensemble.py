"""
An ensemble, and what it is unsure of
=====================================

Networks that differ by nothing but their random seeds err in different directions. The mean of
their rates is therefore nearer to the truth than the rates of any of them, and where they
disagree, the rates are less certain. :class:`~sklearn_stndt.BaggingEnsemble` trains the members
side by side, and averages their rates.
"""

# %%
# The data: generated reaches, whose true rates are known. If the environment variable
# ``STNDT_DATA`` names a folder with ``datahigh/datahigh_20ms.npz``, motor cortex of a monkey takes
# their place.
import os
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from scipy.stats import spearmanr

from sklearn_stndt import BaggingEnsemble, STNDTEstimator
from sklearn_stndt.datasets import make_reaches

if "STNDT_DATA" in os.environ:
    recording = np.load(Path(os.environ["STNDT_DATA"]) / "datahigh" / "datahigh_20ms.npz")
    spikes, bin_width, true_rates = recording["ex2_spikes_first1s"], 0.02, None
    shuffled = np.random.RandomState(0).permutation(len(spikes))
    train, test = np.split(shuffled, [len(spikes) * 4 // 5])
else:
    data = make_reaches(n_trials=80, n_neurons=50, random_state=0)
    spikes, bin_width, true_rates = data.spikes, data.bin_width, data.rates
    train, test = np.arange(40), np.arange(40, 80)

# %%
# Six members, two at a time. The seed of the ensemble draws the seeds of the members, so the rates
# are the same for every ``n_jobs``. On a cluster, ``joblib.parallel_config`` hands the members to
# its workers, with no change here. ``bootstrap=True`` would draw other trials for each member too.
ensemble = BaggingEnsemble(STNDTEstimator(), n_estimators=6, n_jobs=2, random_state=0)
ensemble.fit(spikes[train])

# %%
# How many members are enough? ``score_curve`` scores the mean of the first one, two, and so on, by
# bits per spike of entries that were hidden: 0 is each neuron's mean rate. Every member on its own
# stands beside it. The first members bring most of the gain.
curve = ensemble.score_curve(spikes[test])
alone = np.array([member.score(spikes[test]) for member in ensemble])
rates, disagreement = ensemble.transform(spikes[test]), ensemble.rate_std(spikes[test])

print(f"bits per spike of single members: {alone.mean():.4f}, from {alone.min():.4f}", end=" ")
print(f"to {alone.max():.4f}")
for n_members, score in enumerate(curve, start=1):
    print(f"mean of {n_members}: {score:.4f}")

# %%
# What is disagreement worth? Where the truth is known: sort all rates by the disagreement of the
# members, and compare it with how far their mean is from the truth. The error grows with
# the disagreement, so disagreement tells good rates from bad ones. But it is larger: it also has a
# part that all members share, because they learned from the same trials, and no ensemble can see
# that part. Read ``rate_std`` as a ranking and a lower bound, not as an error bar.
#
# In a real recording nobody knows the true rates, and there remains what disagreement depends on:
# mostly the rate itself.
in_hz = disagreement.ravel() / bin_width
if true_rates is None:
    name, against = "rate (Hz)", rates.ravel() / bin_width
else:
    name, against = "error of the mean rate (Hz)", (rates - true_rates[test]).ravel() / bin_width
groups = np.array_split(np.argsort(in_hz), 12)  # from the least to the largest disagreement
x = np.array([in_hz[group].mean() for group in groups])
y = np.array([np.sqrt(np.mean(against[group] ** 2)) for group in groups])  # root mean square

fig, (left, right) = plt.subplots(1, 2, figsize=(8, 3.4), layout="constrained")
members = np.arange(1, len(ensemble) + 1)
left.plot(members, curve, "o-", color="#0072B2", label="mean of the first n")
left.plot(members, alone, "s", color="#E69F00", mfc="none", mew=1.5, label="member n alone")
left.set(xlabel="members n", ylabel="hidden entries (bits per spike)", xticks=members)
left.legend(frameon=False)
right.loglog(x, y, "o-", color="#0072B2")
if true_rates is not None:
    right.loglog(x, x, color="0.5", ls="--", lw=1, label="equal")
    right.legend(frameon=False)
    print(f"rank correlation of disagreement and error: {spearmanr(in_hz, abs(against))[0]:.2f}")
right.set(xlabel="disagreement of the members (Hz)", ylabel=name)
plt.show()
