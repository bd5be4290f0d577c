"""
Decode position from a continuous recording
===========================================

A continuous recording is a table with one row per bin and one column per neuron. One line puts
:class:`~sklearn_stndt.STNDTEstimator` before scikit-learn's own ``Ridge``, and everything
that scikit-learn does with a pipeline works. Here it decodes the position of a rat on a track.
"""

# %%
# The data
# --------
# If the environment variable ``STNDT_DATA`` names a folder with
# ``nelpy/nelpy_linear-track_25ms.npz``: 31 units of a rat's hippocampus on a linear track, and its
# position in the camera image, in pixels. Place cells encode position only while the animal runs,
# so only those bins are used, with all runs concatenated; the animal mostly continues where it had
# stopped. At the start and the end of the recording it was carried; these bins are left out.
#
# Otherwise: a simulated rat that runs back and forth at a varying speed, and 40 place cells, each
# with one field for one of the two directions.
import os
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from scipy.ndimage import gaussian_filter1d
from sklearn.linear_model import Ridge
from sklearn.model_selection import GridSearchCV, KFold, cross_val_predict, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

from sklearn_stndt import STNDTEstimator


def load_linear_track(folder, slowest=20):
    """Spikes and position while the rat runs faster than `slowest` pixels/s."""
    recording = np.load(Path(folder) / "nelpy" / "nelpy_linear-track_25ms.npz")
    position = recording["pos_px"]
    velocity = np.gradient(gaussian_filter1d(position, 10, axis=0), recording["bin_s"], axis=0)
    running = np.linalg.norm(velocity, axis=1) > slowest
    running[: int(55 / recording["bin_s"])] = False
    running[int(975 / recording["bin_s"]) :] = False
    return recording["spikes"][running], position[running]


def simulate_linear_track(n_bins=4000, n_neurons=40, length=150, bin_width=0.025, seed=0):
    """Spikes of place cells, and position in cm."""
    rng = np.random.default_rng(seed)
    noise = gaussian_filter1d(rng.standard_normal(n_bins), 1 / bin_width)
    speed = np.maximum(35 + 12 * noise / noise.std(), 0)  # cm/s
    on_loop = np.cumsum(speed) * bin_width % (2 * length)  # back and forth
    fields = np.linspace(0, 2 * length, n_neurons, endpoint=False)
    distance = np.abs(on_loop[:, None] - fields)
    distance = np.minimum(distance, 2 * length - distance)
    peak_rates = rng.lognormal(np.log(3), 0.6, n_neurons)  # Hz
    rates = 0.2 + peak_rates * np.exp(-0.5 * (distance / 12) ** 2)
    return rng.poisson(rates * bin_width), np.abs(on_loop - length)


bin_width = 0.025  # s
if "STNDT_DATA" in os.environ:
    spikes, position = load_linear_track(os.environ["STNDT_DATA"])
    unit, n_splits, window = "pixels", 4, 128
else:
    spikes, position = simulate_linear_track()
    unit, n_splits, window = "cm", 3, 64
spikes = spikes.astype(float)  # smoothed counts are not whole numbers
print(f"{len(spikes)} bins, {spikes.shape[1]} neurons", end=", ")
print(f"{spikes.mean() / bin_width:.2f} spikes per second and neuron")

# %%
# One line
# --------
# The network processes ``window`` bins at a time: 1.6 s of the simulation, 3.2 s of the recording
# of a slower rat. Rows in order of time need contiguous folds.
#
# .. warning::
#    ``KFold`` **without** ``shuffle``. Shuffled rows scramble time for the network, and put
#    neighbouring bins, which are nearly identical, into training and test sets. Nothing can warn
#    you, because rows carry no time stamps.
#
# ``memory`` caches fitted networks on disk, so that none is trained twice below. This needs an
# integer ``random_state``, so that two fits are identical.
cv = KFold(n_splits)
folder = tempfile.TemporaryDirectory()

model = make_pipeline(STNDTEstimator(window=window, random_state=0), Ridge(), memory=folder.name)
scores = cross_val_score(model, spikes, position, cv=cv)
print(f"R2 of STNDT and Ridge(): {scores.mean():.3f}")

# %%
# Four decoders
# -------------
# Rates in spikes per bin are small numbers, so they need large coefficients, which the default
# penalty, ``alpha=1``, shrinks too much. For a fair comparison, the penalty of each decoder is
# chosen within the training folds, as is the width of the **Gaussian smoothing**. **Counts** are
# decoded directly.
#
# The rate of a place cell is near zero for most of the lap and high for a moment, and a linear
# regression is dominated by the highest rates. Log-rates represent both low and high rates well;
# rates are never 0.
alphas = [1e-5, 1e-3, 1e-1, 10]
widths = [{"sigma": width, "axis": 0} for width in (3, 6, 12, 24, 48)]
inner_cv = KFold(3)

counts = GridSearchCV(Ridge(), {"alpha": alphas}, cv=inner_cv)
smoothing = GridSearchCV(
    make_pipeline(FunctionTransformer(gaussian_filter1d), Ridge()),
    {"functiontransformer__kw_args": widths, "ridge__alpha": alphas},
    cv=inner_cv,
)
stndt = make_pipeline(
    STNDTEstimator(window=window, random_state=0),
    GridSearchCV(Ridge(), {"alpha": alphas}, cv=inner_cv),
    memory=folder.name,
)
log_rates = make_pipeline(
    STNDTEstimator(window=window, random_state=0),
    FunctionTransformer(np.log),
    GridSearchCV(Ridge(), {"alpha": alphas}, cv=inner_cv),
    memory=folder.name,
)

# %%
# R2 in the test folds: 1 is perfect, 0 is the mean position.
decoders = {
    "counts": counts,
    "Gaussian smoothing": smoothing,
    "STNDT": stndt,
    "STNDT, log-rates": log_rates,
}
decoded = {}
print(f"{'':20}{'R2':>7}   in each fold")
for name, decoder in decoders.items():
    scores = cross_val_score(decoder, spikes, position, cv=cv)
    decoded[name] = cross_val_predict(decoder, spikes, position, cv=cv)
    print(f"{name:20}{scores.mean():7.3f}   {np.round(scores, 2)}", flush=True)
folder.cleanup()

# %%
# The true and decoded position along the track, in part of a test fold. A place cell fires a few
# spikes in its field and is silent for the rest of the lap. Smoothing trades noise against temporal
# resolution; the network can learn which cells fire together, and which fire next.
start = len(spikes) // n_splits + 100  # in the second fold
shown = slice(start, start + 1200)
time = np.arange(1200) * bin_width
fig, axes = plt.subplots(2, 1, figsize=(7, 5), sharex=True, sharey=True, layout="constrained")
colors = {"Gaussian smoothing": "#E69F00", "STNDT, log-rates": "#0072B2"}
for ax, (name, color) in zip(axes, colors.items(), strict=True):
    for values, style in (
        (position, {"color": "black", "lw": 2.5, "alpha": 0.35, "label": "truth"}),
        (decoded[name], {"color": color, "lw": 1.2, "label": name}),
    ):
        ax.plot(time, values[shown].reshape(len(time), -1)[:, 0], **style)  # x, of x and y
    ax.set_ylabel(f"position ({unit})")
    ax.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2, frameon=False, borderaxespad=0)
axes[1].set_xlabel("time spent running (s)")
plt.show()
