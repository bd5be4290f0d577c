"""
Run the Neural Latents Benchmark
================================

The benchmark asks for the rates of neurons that a model does not see, and of the bins after a
trial. This example takes the whole way: an NWB file in the layout of the benchmark's MC_Maze,
trials and behaviour from it, a network trained on what may be seen, a submission, and the scores.

With the real recordings the way is the same; only the file comes from
:func:`~sklearn_stndt.datasets.fetch_nlb`.
"""

# %%
# A file
# ------
# One hundred reaches of a second and a bit, 142 neurons, of which 35 are held out, and the velocity
# of the hand, 1,000 samples a second. It is generated here and written with pynwb, so that the
# example needs no download.
import tempfile
from datetime import UTC, datetime
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from pynwb import NWBHDF5IO, NWBFile, TimeSeries
from scipy.ndimage import gaussian_filter1d

from sklearn_stndt import STNDTEstimator
from sklearn_stndt.datasets import (
    evaluate,
    load_nlb,
    load_nwb,
    make_reaches,
    make_submission,
    save_submission,
)

n_trials, n_neurons, n_heldout, n_ms = 100, 142, 35, 1200
data = make_reaches(
    n_trials, n_ms, n_neurons, n_conditions=4, bin_width=0.001, duration=0.7, random_state=0
)
starts = 1.3 * np.arange(n_trials)  # s
session = NWBFile("generated reaches", "reaches", datetime(2026, 1, 1, tzinfo=UTC))

rng = np.random.default_rng(0)
session.add_unit_column("heldout", "not to be shown to models")
for neuron in range(n_neurons):
    counts = data.spikes[..., neuron]
    trial, ms = np.repeat(np.nonzero(counts), counts[counts > 0], axis=1)
    session.add_unit(
        spike_times=np.sort(starts[trial] + (ms + rng.random(len(ms))) / 1000),
        obs_intervals=[[0.0, starts[-1] + 1.3]],
        heldout=neuron >= n_neurons - n_heldout,
    )

for column in ("move_onset_time", "split", "trial_type", "trial_version"):
    session.add_trial_column(column, column)
for trial, start in enumerate(starts):
    session.add_trial(
        start_time=start,
        stop_time=start + n_ms / 1000,
        move_onset_time=round(start + data.onsets[trial], 3),
        split="val" if trial % 4 == 3 else "train",
        trial_type=int(data.conditions[trial]),
        trial_version=0,
    )

velocity = np.zeros((round(1000 * (starts[-1] + 1.3)), 2))
for start, of_trial in zip(starts, data.velocity, strict=True):
    velocity[round(1000 * start) :][:n_ms] = of_trial
hand = TimeSeries(name="hand_vel", data=velocity, unit="cm/s", rate=1000.0)
session.create_processing_module("behavior", "the hand").add(hand)

folder = tempfile.TemporaryDirectory()
path = Path(folder.name) / "reaches.nwb"
with NWBHDF5IO(path, "w") as io:
    io.write(session)
print(f"{path.name}: {path.stat().st_size / 1e6:.1f} MB")

# %%
# A look into it
# --------------
# ``load_nwb`` reads any NWB file with a units table: bins of the width you want, trials around the
# event you want, behaviour brought to the same bins.
trials = load_nwb(
    path, bin_width=0.02, align="move_onset_time", window=(-0.3, 0.6), behavior="hand_vel"
)
print("spikes:", trials.spikes.shape, " velocity:", trials.behavior["hand_vel"].shape)
trials.trials.head(3)

# %%
# What the benchmark makes of it
# ------------------------------
# ``load_nlb`` cuts the same file as the benchmark does: from 250 ms before the movement to 450 ms
# after it, followed by 200 ms that are to be forecast. Training trials are complete. In
# evaluation trials, held-out neurons and forecast bins are NaN, the word for "hidden" that the
# estimator takes anyway. The benchmark's own bins have 5 ms; those of 20 ms are a track
# of their own, with networks that are quicker to train.
task = load_nlb(path, name="mc_maze_small_20")
print(task.DESCR)
print("X_train:", task.X_train.shape, " X_eval:", task.X_eval.shape)
print(f"hidden in X_eval: {np.isnan(task.X_eval).mean():.0%}")

# %%
# A network, and a rival
# ----------------------
# The network is told which neurons and bins it will have to do without, and never sees them in
# training either.
network = STNDTEstimator(
    heldout_neurons=task.heldout,
    forecast_bins=task.n_forward,
    max_epochs=250,
    random_state=0,
).fit(task.X_train)


# %%
# The rival smooths what it sees and knows the course of the mean rate of each neuron for the rest:
# what can be said without any link between neurons.
class MeanCourse:
    """Smoothed counts, and the mean over training trials where they are hidden."""

    def __init__(self, width):
        self.width = width

    def fit(self, X):
        self.course_ = gaussian_filter1d(X.mean(axis=0), self.width, axis=0)
        return self

    def transform(self, X):
        smooth = gaussian_filter1d(np.nan_to_num(X), self.width, axis=1)
        return np.where(np.isnan(X), self.course_, smooth)


rival = MeanCourse(width=3).fit(task.X_train)

# %%
# Submissions and scores
# ----------------------
# A submission is a dictionary of rates, which ``save_submission`` writes in the benchmark's format.
# ``evaluate`` takes dictionaries and files alike, and gives the numbers of the benchmark's own
# evaluator. In bits per spike, 0 is the mean rate of each neuron.
submissions = {
    name: make_submission(model, task)
    for name, model in {"mean course": rival, "STNDT": network}.items()
}
save_submission(submissions["STNDT"], Path(folder.name) / "submission.h5")

scores = {}
for name, submission in submissions.items():
    ((_, scores[name]),) = evaluate(task, submission)[0].items()
metrics = list(scores["STNDT"])
print(f"{'':12}" + "".join(f"{metric:>16}" for metric in metrics))
for name, of_model in scores.items():
    print(f"{name:12}" + "".join(f"{of_model[metric]:16.3f}" for metric in metrics))

# %%
# Rates of a held-out neuron in four evaluation trials, in Hz, with its spikes: the network saw none
# of them. In the last 200 ms it saw nothing at all.
rates = network.transform(task.X_eval) / task.bin_width
neuron = task.heldout[np.nanmean(task.spikes_eval, axis=(0, 1))[task.heldout].argmax()]
time = -0.25 + task.bin_width * (np.arange(rates.shape[1]) + 0.5)
fig, axes = plt.subplots(1, 4, figsize=(8, 2.6), sharey=True, layout="constrained")
for trial, ax in enumerate(axes):
    spikes = task.spikes_eval[trial, :, neuron] / task.bin_width
    ax.bar(time, spikes, width=task.bin_width, color="0.8", label="spikes")
    ax.plot(
        time, rival.course_[:, neuron] / task.bin_width, "--", color="#E69F00", label="mean course"
    )
    ax.plot(time, rates[trial, :, neuron], color="#0072B2", label="STNDT")
    ax.axvspan(0.45, 0.65, color="0.95", zorder=0)
    ax.set(title=f"trial {trial + 1}", xlabel="time from movement (s)")
axes[0].set_ylabel("rate (Hz)")
handles, labels = axes[0].get_legend_handles_labels()
fig.legend(handles, labels, loc="outside upper center", ncols=3, frameon=False)
plt.show()
folder.cleanup()
