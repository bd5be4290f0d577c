"""
Rates and velocity in a closed loop
===================================

A closed loop receives one bin at a time and may not wait for later ones.
:class:`~sklearn_stndt.streaming.RateStream` infers the rates of each bin as it comes, and decodes
hand velocity from them.
"""

# %%
# Train a causal decoder
# ----------------------
# Generated centre-out reaches. With ``causal=True``, rates depend on the present bin and earlier
# ones alone. ``forecast_bins`` trains the network to infer later bins as well. The decoder is
# scikit-learn's ridge regression, and the hand follows the neurons by 80 ms, four bins.
import time

# sphinx_gallery_thumbnail_number = 2
import matplotlib.pyplot as plt
import numpy as np
from scipy.ndimage import gaussian_filter1d
from sklearn.linear_model import Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

from sklearn_stndt import BinwiseRegressor, STNDTEstimator
from sklearn_stndt.datasets import make_reaches
from sklearn_stndt.streaming import RateStream

data = make_reaches(n_trials=120, random_state=0)
train, test = slice(0, 60), slice(60, None)
network = STNDTEstimator(causal=True, forecast_bins=5, random_state=0)
decoder = make_pipeline(network, BinwiseRegressor(Ridge(0.1), lag=4))
decoder.fit(data.spikes[train], data.velocity[train])

# %%
# Play the test trials bin by bin
# -------------------------------
# In an experiment, the counts of a bin come from the amplifier; here they come from test trials,
# as if it were now. ``reset`` begins a trial. The time of each step is recorded.
stream = RateStream(decoder)
live, times = [], []
for trial in data.spikes[test]:
    stream.reset()
    for counts in trial:
        begin = time.perf_counter()
        live.append(stream.step(counts))
        times.append(1000 * (time.perf_counter() - begin))
live = np.reshape(live, (len(data.spikes[test]), -1, 2))

# %%
# At every bin, this is what ``predict`` gives for whole trials.
print("largest difference:", np.abs(live - decoder.predict(data.spikes[test])).max())
print(f"median step: {np.median(times):.2f} ms, 99 %: {np.quantile(times, 0.99):.2f} ms")


# %%
# Two decoders for comparison: one of counts smoothed by the past half of a Gaussian, with the best
# of several widths in the test trials, in its favour; and the same network with later bins, which
# no loop has.
def half_gaussian(X, width):
    """Smooth with weights of the present bin and earlier ones alone."""
    kernel = np.exp(-0.5 * (np.arange(4 * width + 1) / width) ** 2)
    padded = np.pad(X.astype(float), [(0, 0), (len(kernel) - 1, 0), (0, 0)], mode="edge")
    windows = np.lib.stride_tricks.sliding_window_view(padded, len(kernel), axis=1)
    return windows @ kernel[::-1] / kernel.sum()


scores = {"STNDT, live": decoder.score(data.spikes[test], data.velocity[test])}
smoothing = [
    make_pipeline(
        FunctionTransformer(half_gaussian, kw_args={"width": width}),
        BinwiseRegressor(Ridge(0.1), lag=4),
    ).fit(data.spikes[train], data.velocity[train])
    for width in (1, 2, 3, 4, 6)
]
scores["half Gaussian"] = max(s.score(data.spikes[test], data.velocity[test]) for s in smoothing)
two_sided = make_pipeline(STNDTEstimator(random_state=0), BinwiseRegressor(Ridge(0.1), lag=4))
two_sided.fit(data.spikes[train], data.velocity[train])
scores["STNDT with later bins"] = two_sided.score(data.spikes[test], data.velocity[test])
for name, score in scores.items():
    print(f"{name:24}R2 of velocity {score:.3f}")

# %%
# What the loop saw
# -----------------
# Rates of a trial as they were inferred, with forecasts of five bins at three times
# (dashed). For comparison, counts smoothed *afterwards*, with both sides of a Gaussian.
rates = RateStream(network, ahead=5)
inferred = np.array([rates.step(counts) for counts in data.spikes[test][0]])  # bins, ahead, neurons
seconds = data.bin_width * np.arange(len(inferred))
busiest = np.argsort(data.rates[train].std(axis=(0, 1)))[-3:]
fig, axes = plt.subplots(3, 1, figsize=(7, 5), sharex=True, layout="constrained")
for ax, neuron in zip(axes, busiest, strict=True):
    smoothed = gaussian_filter1d(data.spikes[test][0, :, neuron].astype(float), 2)
    ax.plot(seconds, smoothed / data.bin_width, color="0.7", label="smoothed afterwards")
    ax.plot(seconds, data.rates[test][0, :, neuron] / data.bin_width, "k", lw=1, label="true rate")
    ax.plot(seconds, inferred[:, 0, neuron] / data.bin_width, color="C3", label="live")
    for begin in (10, 20, 30):
        later = seconds[begin] + data.bin_width * np.arange(6)
        ax.plot(later, inferred[begin, :, neuron] / data.bin_width, "C0--", lw=2, label="forecast")
    ax.set(ylabel=f"neuron {neuron}\n(Hz)", ylim=(0, None))
axes[-1].set_xlabel("time (s)")
fig.legend(handles=axes[0].lines[:4], loc="outside upper center", ncols=4, frameon=False)

# %%
# The decoded path of the hand, the cumulative sum of velocity, and the time of each step. In a
# loop of 20 ms bins, the step must end well within 20 ms.
fig, axes = plt.subplots(1, 3, figsize=(9, 3), layout="constrained")
for ax, velocity in zip(axes, (data.velocity[test], live), strict=False):
    for path, target in zip(np.cumsum(velocity[:16], axis=1), data.conditions[test], strict=False):
        ax.plot(*data.bin_width * path.T, color=f"C{target}", lw=1.2)  # a colour per target
    ax.set(xlabel="x (cm)", aspect="equal", xlim=(-14, 14), ylim=(-14, 14))
axes[0].set(title="true path", ylabel="y (cm)")
axes[1].set_title("decoded live")
axes[2].plot(np.sort(times), np.linspace(0, 1, len(times)), color="C3")
axes[2].axvline(1000 * data.bin_width, color="0.5", ls=":", label="a bin")
axes[2].legend(frameon=False)
axes[2].set(title="time of a step", xlabel="ms", ylabel="fraction of steps", xscale="log")
plt.show()
