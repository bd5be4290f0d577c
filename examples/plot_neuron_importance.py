"""
Important neurons
=================

Some neurons are informative about the population, most are not. The former receive more attention
in the network; other measures quantify the loss without them. Here the answer is known: a few
neurons of a generated population were made informative. A test that needs no ground truth is the
dropping curve: hide the spikes of the neurons that are ranked first, and score the rates of
held-out neurons.
"""

# %%
# Planted neurons
# ---------------
# A slow latent state of three dimensions drives 52 neurons. Of the 40 held-in neurons, 8 are
# *planted*: they follow the state closely. The other 32 follow it so weakly that their spikes are
# nearly all noise. Mean rates are independent of this. The remaining 12 neurons are *held out*:
# their spikes are never input to the network, which infers their rates from the others.
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
# Two networks: STNDT, with spatial attention, and NDT, without.
stndt = STNDTEstimator(heldout_neurons=heldout, random_state=0).fit(train)
ndt = STNDTEstimator(heldout_neurons=heldout, attention="temporal", random_state=0).fit(train)
print("Bits per spike of held-out neurons, test trials")
print(f"    STNDT  {stndt.score(test):.3f}\n    NDT    {ndt.score(test):.3f}")

# %%
# Four rankings
# -------------
# *Attention*: the attention that a neuron receives from all others, the published measure.
# *Gradient*: the sensitivity of the rates of others to its counts. *Permutation* and *hiding*: the
# bits per spike that the held-out neurons lose when its spikes are permuted across trials, or
# hidden.
#
# How well does each find the planted neurons? Average precision is 1 if all of them are ranked
# first; for a random order it is about .2.
print("\nAverage precision against the planted neurons")
importance = {}
for method in ("attention", "gradient", "permutation", "hiding"):
    importance[method] = neuron_importance(stndt, test, method, random_state=0)
    precision = average_precision_score(planted, importance[method][:n_shown])
    print(f"    STNDT, {method:12} {precision:.2f}")
for method in ("gradient", "permutation", "hiding"):  # NDT has no spatial attention
    of_ndt = neuron_importance(ndt, test, method, random_state=0)
    print(f"    NDT, {method:14} {average_precision_score(planted, of_ndt[:n_shown]):.2f}")

# %%
# The importance of each neuron, relative to the largest, in order of rank. For held-out neurons it
# is NaN.
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
# The attention maps, of which the spatial one gives the first ranking: mean temporal attention
# between bins and mean spatial attention between neurons. Columns are the bins or neurons that are
# attended to. Held-out neurons are left out, because they receive no attention.
AttentionDisplay.from_estimator(stndt, test, heldin_only=True)

# %%
# Dropping curves
# ---------------
# Hide the spikes of the first k neurons of a ranking, and score the held-out neurons. The dashed
# line is the mean of ten random orders of the same neurons, its band two standard errors. As a
# control, the ranking by STNDT's attention is applied to NDT.
curves = {"STNDT": neuron_dropping_curve(stndt, test, n_dropped=range(0, 21, 2), random_state=0)}
curves["NDT"] = neuron_dropping_curve(ndt, test, ranking=curves["STNDT"])
NeuronDroppingDisplay.from_curves(curves)

print(f"\nBits per spike lost with {n_planted} neurons dropped: ranked by attention, and random")
for name, curve in curves.items():
    (k,) = np.flatnonzero(curve.n_dropped == n_planted)
    scores, mean = curve.scores["bits_per_spike"], curve.random_mean["bits_per_spike"]
    error = curve.random_2se["bits_per_spike"][k]
    print(
        f"    {name:6} {scores[0] - scores[k]:.3f}, "
        f"{mean[0] - mean[k]:.3f} ± {error:.3f} (two standard errors)"
    )

# %%
# Attention shows which neurons the network attends to. Mostly these are the neurons that it uses,
# but not always: a ranking that measures use is better here. With either ranking, a different
# kind of network loses as much when the same neurons are dropped.
plt.show()
