"""
An ensemble: how many members, and what it is unsure of
=======================================================

Networks that differ by their random seeds and their hyperparameters err in different directions.
The mean of their rates is therefore nearer to the truth than the rates of any of them, and where
they disagree, the rates are less certain. :class:`~sklearn_stndt.BaggingEnsemble` draws the
hyperparameters, trains the members side by side, ranks them on trials that none of them has
learned from, and averages the best: the ensemble that STNDT was published with, and the figure
that shows what it gains.
"""

# %%
# The data: generated reaches, whose true rates are known. If the environment variable
# ``STNDT_DATA`` names a folder with ``datahigh/datahigh_20ms.npz``, motor cortex of a monkey takes
# their place.
import os
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from scipy.stats import loguniform, spearmanr, uniform

from sklearn_stndt import BaggingEnsemble, STNDTEstimator
from sklearn_stndt.datasets import make_reaches
from sklearn_stndt.plotting import EnsembleCurveDisplay

if "STNDT_DATA" in os.environ:
    recording = np.load(Path(os.environ["STNDT_DATA"]) / "datahigh" / "datahigh_20ms.npz")
    spikes, bin_width, true_rates = recording["ex2_spikes_first1s"], 0.02, None
    shuffled = np.random.RandomState(0).permutation(len(spikes))
    train, test = np.split(shuffled, [len(spikes) * 4 // 5])
else:
    data = make_reaches(n_trials=80, n_neurons=40, random_state=0)
    spikes, bin_width, true_rates = data.spikes, data.bin_width, data.rates
    train, test = np.arange(40), np.arange(40, 80)

# %%
# Ten members, two at a time. Each has a seed of its own, which draws its parameters from the search
# space, so the rates are the same for every ``n_jobs``. On a cluster, ``joblib.parallel_config``
# hands the members to its workers, with no change here; with ``checkpoint_dir`` a night that ends
# early loses none of them. ``n_best="auto"`` would keep as many as is best; ``n_best=10`` keeps all
# of them, and ranks them.
search_space = {
    "dropout": uniform(0.1, 0.4),
    "lr": loguniform(1e-3, 1e-2),
    "d_model": [16, 32, 64],
    "mask_ratio": [(0.0, 0.5), (0.0, 0.8), 0.3],
}
ensemble = BaggingEnsemble(
    STNDTEstimator(),
    n_estimators=10,
    param_distributions=search_space,
    n_best=10,
    n_jobs=2,
    random_state=0,
).fit(spikes[train])

# %%
# How many members are enough? ``score_curve`` scores the mean of the best one, two, and so on, here
# on test trials, by bits per spike of entries that were hidden: 0 is each neuron's mean rate. Every
# member on its own stands beside it. ``selection_curve_`` is the same on the trials that were set
# aside for the ranking, and its peak is what ``n_best="auto"`` would have chosen.
curve = ensemble.score_curve(spikes[test])
alone = np.array([ensemble[i].score(spikes[test]) for i in ensemble.selected_])
chosen = 1 + np.argmax(ensemble.selection_curve_)
rates, disagreement = ensemble.transform(spikes[test]), ensemble.rate_std(spikes[test])

print("rank  member  held out   test    mean of the best")
for k, i in enumerate(ensemble.selected_):
    scores = f"{ensemble.scores_[i]:8.4f}{alone[k]:9.4f}{curve[k]:12.4f}"
    print(f"{k + 1:4d}{i:8d}  {scores}")
print(f'n_best="auto" would average {chosen}')

# %%
# The curve, with the number that ``n_best="auto"`` would have chosen.
display = EnsembleCurveDisplay.from_scores(curve, alone)
display.ax_.axvline(chosen, color="0.6", ls="--", lw=1, zorder=0)

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

fig, ax = plt.subplots(figsize=(4.2, 3.4), layout="constrained")
ax.loglog(x, y, "o-", color="#0072B2")
if true_rates is not None:
    ax.loglog(x, x, color="0.5", ls="--", lw=1, label="equal")
    ax.legend(frameon=False)
    print(f"rank correlation of disagreement and error: {spearmanr(in_hz, abs(against))[0]:.2f}")
ax.set(xlabel="disagreement of the members (Hz)", ylabel=name)
plt.show()
