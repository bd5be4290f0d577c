"""
Tutorial: from an NWB file to rates and decoded movement
========================================================

What does the package do with a recording, from the file to a figure? This tutorial writes an NWB
file of generated reaches, loads it as if it were yours, infers single-trial firing rates, compares
them with smoothed spikes, decodes the velocity of the hand, and saves the network. It takes one to
two minutes on one core, and needs ``pip install "sklearn-stndt[io,plot,save]"``. At the end of the
page it can be downloaded as a notebook.
"""

# %%
# A recording
# -----------
# Skip this step if you have an NWB file with sorted units. A hand reaches from a centre to one of
# four targets, and 40 neurons of motor cortex are recorded for three and a half minutes. The file
# holds what such files usually hold: the spike times of each unit, a table of trials with the
# target and the time at which the hand started to move, and the velocity of the hand at 1,000
# samples per second.
import tempfile
from datetime import UTC, datetime
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from pynwb import NWBHDF5IO, NWBFile, TimeSeries

from sklearn_stndt.datasets import make_reaches

# sphinx_gallery_thumbnail_number = 2
n_trials, n_neurons, n_ms = 140, 40, 1000
made = make_reaches(
    n_trials, n_ms, n_neurons, n_conditions=4, bin_width=0.001, mean_rate=12, random_state=1
)
rng = np.random.default_rng(0)
starts = 0.5 + np.cumsum(rng.uniform(1.3, 1.7, size=n_trials))  # seconds

session = NWBFile("reaches to four targets", "session-1", datetime(2026, 1, 1, tzinfo=UTC))
for neuron in range(n_neurons):
    counts = made.spikes[..., neuron]
    trial, ms = np.repeat(np.nonzero(counts), counts[counts > 0], axis=1)
    session.add_unit(spike_times=np.sort(starts[trial] + (ms + rng.random(len(ms))) / 1000))
session.add_trial_column("move_onset_time", "when the hand starts to move")
session.add_trial_column("target", "where the hand goes")
for trial, start in enumerate(starts):
    session.add_trial(
        start_time=start,
        stop_time=start + 1.0,
        move_onset_time=start + made.onsets[trial],
        target=["right", "up", "left", "down"][made.conditions[trial]],
    )
velocity = np.zeros((round(1000 * (starts[-1] + 1.5)), 2))
for start, of_trial in zip(starts, made.velocity, strict=True):
    velocity[round(1000 * start) :][:n_ms] = of_trial
hand = TimeSeries(name="hand_vel", data=velocity, unit="cm/s", rate=1000.0)
session.create_processing_module("behavior", "the hand").add(hand)

folder = tempfile.TemporaryDirectory()
path = Path(folder.name) / "session.nwb"
with NWBHDF5IO(path, "w") as io:
    io.write(session)
print(f"{path.name}: {path.stat().st_size / 1e6:.1f} MB")

# %%
# Load it
# -------
# One call counts spikes in bins of 20 ms, cuts a trial around each movement, and brings the
# velocity into the same bins. Look at the shapes first: trials, bins, neurons.
from sklearn_stndt.datasets import load_nwb

data = load_nwb(path, bin_width=0.02, align="move_onset_time", window=(-0.3, 0.5))
X, y = data.spikes, data.behavior["hand_vel"]
print("spikes:", X.shape, " velocity:", y.shape, data.behavior_units["hand_vel"])
print(f"mean rate: {X.mean() / data.bin_width:.1f} Hz")

# %%
# ``data.trials`` is the table of trials, one row for each trial in ``X``.
data.trials.head(3)

# %%
# Set trials aside
# ----------------
# Whatever is reported below comes from trials that neither the network nor a decoder was trained
# on.
from sklearn.model_selection import train_test_split

train, test = train_test_split(
    np.arange(len(X)), test_size=40, stratify=data.trials["target"], random_state=0
)

# %%
# Infer rates
# -----------
# The network learns to predict spikes that are hidden from it, from those around them in time and
# in other neurons. It sees no target and no velocity.
from sklearn_stndt import STNDTEstimator

network = STNDTEstimator(random_state=0).fit(X[train])
rates = network.transform(X)  # expected spikes per bin
print("rates:", rates.shape)

# %%
# ``score`` hides every entry of the test trials once and predicts it. Its unit is bits per spike: 0
# is as good as each neuron's mean rate, and below 0 nothing was learnt. How much there is to be
# predicted differs between recordings, so compare scores within one, such as those of two networks.
print(f"test trials: {network.score(X[test]):.3f} bits per spike")

# %%
# The first figure to look at is one trial of the whole population. Neurons are sorted by the time
# of their highest rate. In the spikes themselves, order is hard to see; in the rates, activity
# passes from neuron to neuron around the start of the movement, which is at 0.3 s.
from sklearn_stndt.plotting import RatesDisplay

RatesDisplay.from_estimator(network, X, trial=test[0], bin_width=data.bin_width)

# %%
# Rates of single trials beside smoothing
# ---------------------------------------
# A PSTH averages trials, and says nothing about any of them. Here is one neuron in the test trials
# of each target: its PSTH; its spikes smoothed by a Gaussian of 40 ms, trial by trial; and its
# inferred rates. Single smoothed trials follow the noise of their few spikes. Inferred rates stay
# close to the PSTH, and differ between trials where the population as a whole does.
from scipy.ndimage import gaussian_filter1d

smoothed = gaussian_filter1d(X, 2, axis=1)  # a standard deviation of 2 bins
targets = data.trials["target"].to_numpy()
names = ["right", "up", "left", "down"]
means = np.array([smoothed[train][targets[train] == name].mean(axis=0) for name in names])
neuron = means.var(axis=0).mean(axis=0).argmax()  # the one that differs most between targets
colors = dict(zip(names, ["#0072B2", "#E69F00", "#009E73", "#CC79A7"], strict=True))
centres = data.time + data.bin_width / 2

fig, axes = plt.subplots(1, 3, figsize=(8.5, 3), sharex=True, sharey=True, layout="constrained")
for name in names:
    of_target = test[targets[test] == name]
    psth = smoothed[of_target, :, neuron].mean(axis=0) / data.bin_width
    axes[0].plot(centres, psth, color=colors[name], lw=2, label=name)
    for ax, values in zip(axes[1:], (smoothed, rates), strict=True):
        single = values[of_target[:6], :, neuron].T / data.bin_width
        ax.plot(centres, single, color=colors[name], lw=0.8)
titles = ("PSTH", "smoothed, single trials", "inferred, single trials")
for ax, title in zip(axes, titles, strict=True):
    ax.axvline(0, color="0.6", lw=0.8, zorder=0)
    ax.set(title=title, xlabel="time from movement (s)")
axes[0].set_ylabel(f"rate of neuron {neuron} (Hz)")
axes[0].set_ylim(0, None)
axes[0].legend(frameon=False)

# %%
# The two agree on average: the mean rates of each target explain the PSTHs of all neurons well,
# although the network does not know the targets.
from sklearn_stndt.plotting import PSTHDisplay

PSTHDisplay.from_estimator(network, X[test], targets[test], bin_width=data.bin_width)

# %%
# Decode the movement
# -------------------
# Ridge regression from the rates to the velocity of the hand, bin by bin. Its penalty, and the lag
# between neurons and hand, are chosen by cross-validation over the training trials. The same
# decoder gets the smoothed spikes for comparison.
from sklearn.linear_model import Ridge
from sklearn.model_selection import GridSearchCV

from sklearn_stndt import BinwiseRegressor

grid = {"estimator__alpha": [1e-3, 1e-2, 1e-1, 1, 10, 100], "lag": [0, 2, 4, 6]}
decoded = {}
for name, features in {"smoothed spikes": smoothed, "inferred rates": rates}.items():
    decoder = GridSearchCV(BinwiseRegressor(Ridge()), grid, cv=5)
    decoder.fit(features[train], y[train])
    decoded[name] = decoder.predict(features[test])
    lag = 1000 * decoder.best_params_["lag"] * data.bin_width
    print(f"{name:16} R2 {decoder.score(features[test], y[test]):.3f}  lag {lag:.0f} ms")

# %%
# One test trial: the velocity of the hand, and what was decoded from the rates.
from sklearn_stndt.plotting import DecodingDisplay

DecodingDisplay.from_predictions(
    y[test], decoded["inferred rates"], trial=0, bin_width=data.bin_width
)

# %%
# Save the network
# ----------------
# A file that can be passed on: loading it runs none of its content. The rates are the same again.
import sklearn_stndt

sklearn_stndt.save(network, Path(folder.name) / "model.stndt")
again = sklearn_stndt.load(Path(folder.name) / "model.stndt")
print("the same rates:", np.array_equal(again.transform(X), rates))
folder.cleanup()
plt.show()

# %%
# Where to go from here
# ---------------------
# - Your own file: :doc:`NWB </guide/from_nwb>`, :doc:`MATLAB </guide/from_matlab>`,
#   :doc:`spike times </guide/from_spike_times>`, :doc:`counts </guide/from_counts>`.
# - The same without writing Python: :doc:`the command </guide/command>`.
# - A score to report: :doc:`cross-validation without leaks </guide/cross_validation>`.
# - A more accurate estimate: :doc:`ensembles </guide/ensembles>`.
