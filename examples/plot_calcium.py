"""
Firing rates from calcium imaging
=================================

Calcium rises with each spike and decays over many frames, so fluorescence is far from the firing
rate. Deconvolution, as by suite2p or CaImAn, estimates the activity in each frame, with much noise.
:class:`~sklearn_stndt.STNDTEstimator` infers rates from it: it uses what all neurons share.
"""

# %%
# The data
# --------
# Generated reaches of 60 neurons with an indicator, imaged at 30 Hz: 100 trials of two seconds to
# train on and 40 to test. A spike raises dF/F by about 0.2, and the noise of a frame is about 0.1.
# With a recording of your own, start with :func:`~sklearn_stndt.datasets.load_suite2p`,
# :func:`~sklearn_stndt.datasets.load_caiman` or :func:`~sklearn_stndt.datasets.load_nwb_ophys`.

# sphinx_gallery_thumbnail_number = 2
import matplotlib.pyplot as plt
import numpy as np
from scipy.ndimage import gaussian_filter1d
from sklearn.linear_model import LinearRegression
from sklearn.metrics import r2_score

from sklearn_stndt import STNDTEstimator
from sklearn_stndt.datasets import align_signals, make_calcium

data = make_calcium(n_trials=140, random_state=0)
train, test = slice(100), slice(100, None)


# %%
# Deconvolve
# ----------
# suite2p saves this as ``spks.npy``, and CaImAn as ``S``. Here it takes a few lines: the algorithm
# of suite2p, OASIS, finds the transients that only decay between spikes and fit best.
def deconvolve(trace, decay):
    """Non-negative deconvolution of one neuron, an autoregressive process of first order."""
    pools = []  # of value, weight, length
    for value in trace:
        pools.append([value, 1.0, 1])
        while len(pools) > 1 and pools[-2][0] * decay ** pools[-2][2] > pools[-1][0]:
            (v, w, n), (v_next, w_next, n_next) = pools[-2:]
            factor = decay**n
            weight = w + w_next * factor**2
            pools[-2:] = [[(v * w + v_next * w_next * factor) / weight, weight, n + n_next]]
    values, _, lengths = map(np.array, zip(*pools, strict=True))
    activity = np.zeros(len(trace))
    starts = np.cumsum(lengths)[:-1]
    activity[starts] = values[1:] - values[:-1] * decay ** lengths[:-1]
    return np.maximum(activity, 0)


decay = np.exp(-1 / (0.5 * data.fps))  # per frame, of an indicator that decays in 0.5 s
activity = np.stack([deconvolve(trace, decay) for trace in data.recording.T], axis=1)


# %%
# Trials of the recording, in bins of two frames, 67 ms. Deconvolved activity is summed over the
# frames of a bin, so that bins without activity are 0.
bin_width = 2 / data.fps  # s


def cut(recording, how="sum"):
    """Trials of two seconds, (trials, bins, neurons)."""
    return align_signals(recording, data.time, data.starts, (0, 2), bin_width, how=how)


X = cut(activity)
true = data.rates.reshape(140, 30, 2, 60).sum(axis=2) / bin_width  # Hz
print(f"{X.shape} (trials, bins, neurons), {np.mean(X == 0):.0%} of the entries are 0")

# %%
# One trial of one neuron, with a median rate among the neurons.
neuron = np.argsort(data.mean_rates)[30]
trial = 100 + data.spikes[test, :, neuron].sum(axis=1).argmax()
frames = (np.arange(60) + 0.5) / data.fps  # s
seconds = (np.arange(30) + 0.5) * bin_width
figure, axes = plt.subplots(3, 1, sharex=True, figsize=(6, 4.5), layout="constrained")
axes[0].plot(frames, data.dff[trial, :, neuron], color="#E69F00")
axes[0].set(ylabel="dF/F", title="Fluorescence, deconvolved activity, and true spikes of a trial")
axes[1].bar(seconds, X[trial, :, neuron], width=0.05, color="#009E73")
axes[1].set(ylabel="deconvolved\nactivity (dF/F)")
axes[2].bar(frames, data.spikes[trial, :, neuron], width=0.02, color="0.4")
axes[2].set(ylabel="spikes\nper frame", xlabel="time in the trial (s)")

# %%
# Infer rates
# -----------
# Deconvolved activity is not a count. With this likelihood, the network infers its expected value.
estimator = STNDTEstimator(likelihood="gaussian", random_state=0)
inferred = estimator.fit(X[train]).transform(X)


# %%
# How good are they?
# ------------------
# Deconvolved activity has no unit of spikes. To compare it with the true rates, each neuron is
# given the gain and the offset that fit best in the training trials. Smoothed activity, with the
# best of several widths in the training trials, is compared in the same way.
def to_rates(values):
    """Scale values to rates in Hz, with a gain and an offset for each neuron."""
    scaled = np.empty(values.shape)
    for n in range(values.shape[-1]):
        column = values[..., n].reshape(-1, 1)
        scale = LinearRegression().fit(column[: 100 * 30], true[train, :, n].ravel())
        scaled[..., n] = scale.predict(column).reshape(values.shape[:2])
    return scaled


def score(rates, part):
    """R2 to the true rates, the mean over neurons."""
    return r2_score(true[part].reshape(-1, 60), rates[part].reshape(-1, 60))


smoothed = [
    to_rates(cut(gaussian_filter1d(activity, width, axis=0)))
    for width in (1, 2, 3, 4)  # frames
]
estimates = {
    "fluorescence": to_rates(cut(data.recording, "mean")),
    "deconvolved, smoothed": max(smoothed, key=lambda rates: score(rates, train)),
    "STNDT": to_rates(inferred),
}
for name, rates in estimates.items():
    print(f"{name:22} R2 of test trials {score(rates, test):5.2f}")

# %%
# Four test trials, to targets in opposite directions, of two neurons with high rates and of the
# neuron above. Of that one, which fires three spikes per second, most is lost in the noise.
neurons = [*np.argsort(-data.mean_rates)[[5, 12]], neuron]
chosen = [100 + np.flatnonzero(data.conditions[test] == c)[k] for c in (0, 4) for k in (0, 1)]
figure, axes = plt.subplots(3, 4, sharex=True, sharey="row", figsize=(9, 5), layout="constrained")
colors = {"deconvolved, smoothed": "#009E73", "STNDT": "#0072B2"}
for row, n in zip(axes, neurons, strict=True):
    for ax, t in zip(row, chosen, strict=True):
        ax.plot(seconds, true[t, :, n], color="0.2", ls="--", label="true")
        for name, color in colors.items():
            ax.plot(seconds, estimates[name][t, :, n], color=color, label=name)
        ax.spines[["top", "right"]].set_visible(False)
    row[0].set_ylabel(f"neuron {n}\nrate (Hz)")
for ax, t in zip(axes[0], chosen, strict=True):
    ax.set_title(f"target {data.conditions[t]}")
figure.supxlabel("time in the trial (s)")
figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=3)
plt.show()
