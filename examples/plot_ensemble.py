"""
Ensembles: number of members and disagreement
=============================================

Networks that differ in their random seeds and hyperparameters make different errors.
Their mean rates are therefore closer to the true rates than those of any single network, and
where they disagree, the rates are less certain. :class:`~sklearn_stndt.BaggingEnsemble` draws the
hyperparameters, trains the members in parallel, ranks them on trials that none of them was trained
on, and averages the best, like the ensemble that was published with STNDT.
"""

# %%
# The data: generated reaches, whose true rates are known. If the environment variable
# ``STNDT_DATA`` names a folder with ``datahigh/datahigh_20ms.npz``, a recording of monkey motor
# cortex is used instead.
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
# Ten members, trained two at a time. Each has its own seed, from which its parameters are drawn, so
# the rates are the same for every ``n_jobs``. On a cluster, ``joblib.parallel_config`` distributes
# the members to the workers without a change here; with ``checkpoint_dir`` an interrupted fit loses
# no finished member. ``n_best="auto"`` would choose the number of members; ``n_best=10`` keeps and
# ranks all of them.
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
# How many members are enough? ``score_curve`` scores the mean of the best one, two, and so on,
# here on test trials, in bits per spike of hidden entries: 0 is each neuron's mean rate. The score
# of each single member is shown for comparison. ``selection_curve_`` is the same on the trials
# that were set aside for the ranking; ``n_best="auto"`` would choose its peak.
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
# The dashed line is the number of members that ``n_best="auto"`` would choose.
display = EnsembleCurveDisplay.from_scores(curve, alone)
display.ax_.axvline(chosen, color="0.6", ls="--", lw=1, zorder=0)

# %%
# How informative is the disagreement? If the true rates are known, sort all rates by the
# disagreement of the members, and compare it with the error of the mean rates. The error grows
# with the disagreement, so disagreement separates good rates from bad ones. But the error is
# larger: part of it is shared by all members, because they were trained on the same trials, and
# cannot be detected by any ensemble. Read ``rate_std`` as a ranking and a lower bound, not as an
# error bar.
#
# In a recording the true rates are unknown. The figure then shows the disagreement against the
# rate, on which it mostly depends.
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
