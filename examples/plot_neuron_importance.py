"""
Which neurons matter
====================

Some neurons tell much about the population, most tell little. The network's attention points at
the former, other measures ask what is lost without them. Here the answer is known: a few neurons
of a generated population were made important. The check that needs no such knowledge is the
dropping curve: hide the spikes of the neurons that are said to matter, and see what happens to the
rates of neurons that are never shown.
"""

# %%
# Planted neurons
# ---------------
# A slow latent state of three dimensions drives 52 neurons. Of the 40 that the network is shown, 8
# follow the state closely, and the other 32 follow it so little that their spikes are nearly all
# noise. Mean rates have nothing to do with it. The remaining 12 neurons are *held out*: the network
# infers their rates from the others, and never sees their spikes at inference.
# sphinx_gallery_thumbnail_number = 3
import matplotlib.pyplot as plt
import numpy as np
from scipy.ndimage import gaussian_filter1d
from sklearn.metrics import average_precision_score

from sklearn_stndt import STNDTEstimator
from sklearn_stndt.inspection import neuron_dropping_curve, neuron_importance
from sklearn_stndt.plotting import AttentionDisplay, NeuronDroppingDisplay

rng = np.random.default_rng(0)
n_trials, n_bins, n_shown, n_heldout, n_planted = 150, 30, 40, 12, 8
n_neurons = n_shown + n_heldout

latents = gaussian_filter1d(rng.standard_normal((n_trials, n_bins + 30, 3)), 4, axis=1)[:, 15:-15]
latents /= latents.std()
planted = np.isin(np.arange(n_shown), rng.permutation(n_shown)[:n_planted])
depth = np.concatenate([np.where(planted, 1.0, 0.2), np.full(n_heldout, 0.7)])
loadings = rng.standard_normal((n_neurons, 3))
loadings *= depth[:, None] / np.linalg.norm(loadings, axis=1, keepdims=True)
mean_rates = rng.uniform(0.2, 0.6, n_neurons)  # spikes per bin
spikes = rng.poisson(mean_rates * np.exp(latents @ loadings.T - depth**2 / 2))

heldout = np.arange(n_shown, n_neurons)
train, test = spikes[:100], spikes[100:]

# %%
# Two networks: STNDT, which attends to neurons, and NDT, which does not.
stndt = STNDTEstimator(heldout_neurons=heldout, random_state=0).fit(train)
ndt = STNDTEstimator(heldout_neurons=heldout, attention="temporal", random_state=0).fit(train)
print("Bits per spike of held-out neurons, test trials")
print(f"    STNDT  {stndt.score(test):.3f}\n    NDT    {ndt.score(test):.3f}")

# %%
# Four rankings
# -------------
# *Attention* is what a neuron receives from all others, the published measure. *Gradient*: how far
# the rates of others follow its counts. *Permutation* and *hiding*: the bits per spike that the
# held-out neurons lose when its spikes are exchanged among trials, or hidden.
#
# How well does each find the planted neurons? Average precision is 1 if all of them come first;
# in a random order it is about .2.
print("\nAverage precision against the planted neurons")
importance = {}
for method in ("attention", "gradient", "permutation", "hiding"):
    importance[method] = neuron_importance(stndt, test, method, random_state=0)
    precision = average_precision_score(planted, importance[method][:n_shown])
    print(f"    STNDT, {method:12} {precision:.2f}")
for method in ("gradient", "permutation", "hiding"):  # there is no attention between neurons
    of_ndt = neuron_importance(ndt, test, method, random_state=0)
    print(f"    NDT, {method:14} {average_precision_score(planted, of_ndt[:n_shown]):.2f}")

# %%
# Each neuron's importance, relative to the largest, in order of rank. Held-out neurons have none:
# their importance is NaN.
fig, axes = plt.subplots(2, 2, figsize=(7, 4.2), sharex=True, layout="constrained")
for ax, (method, values) in zip(axes.flat, importance.items(), strict=True):
    order = np.argsort(-values[:n_shown])
    relative = values[order] / values[order].max()
    for kind, color in ((planted, "#D55E00"), (~planted, "#56B4E9")):
        of_kind = kind[order]
        label = "planted" if kind is planted else "others"
        ax.bar(np.flatnonzero(of_kind), relative[of_kind], color=color, label=label)
    ax.set_title(method, fontsize="medium")
for ax in axes[:, 0]:
    ax.set_ylabel("importance / largest")
for ax in axes[1]:
    ax.set_xlabel("rank")
handles, labels = axes[0, 0].get_legend_handles_labels()
fig.legend(handles, labels, loc="outside upper center", ncols=2, frameon=False)

# %%
# The maps behind the first ranking: the mean attention between bins and between neurons. Columns
# are looked at. Held-out neurons are left out: nobody looks at them.
AttentionDisplay.from_estimator(stndt, test, heldin_only=True)

# %%
# Dropping curves
# ---------------
# Hide the spikes of the first k neurons of a ranking, and score the held-out neurons. The dashed
# line is the mean of ten random orders of the same neurons, its band two standard errors. The
# control: the ranking that STNDT's attention gave, applied to NDT, which had no part in it.
curves = {"STNDT": neuron_dropping_curve(stndt, test, n_dropped=range(0, 21, 2), random_state=0)}
curves["NDT"] = neuron_dropping_curve(ndt, test, ranking=curves["STNDT"])
NeuronDroppingDisplay.from_curves(curves)

print(f"\nBits per spike that are lost with {n_planted} neurons: ranked by attention, and random")
for name, curve in curves.items():
    (k,) = np.flatnonzero(curve.n_dropped == n_planted)
    scores, mean = curve.scores["bits_per_spike"], curve.random_mean["bits_per_spike"]
    error = curve.random_2se["bits_per_spike"][k]
    print(
        f"    {name:6} {scores[0] - scores[k]:.3f}, "
        f"{mean[0] - mean[k]:.3f} ± {error:.3f} (two standard errors)"
    )

# %%
# Attention tells where the network looks, and mostly that is what it uses, but not always: a
# ranking that measures use is the better one here. What holds for both is that a network of
# another kind loses as much with the same neurons.
plt.show()
