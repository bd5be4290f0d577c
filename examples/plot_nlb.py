"""
Run the Neural Latents Benchmark
================================

The benchmark scores the rates of held-out neurons and of the bins after a trial. This example shows
all steps: an NWB file in the layout of the benchmark's MC_Maze, its trials and behaviour, a trained
network, a submission, and the scores.

For the real recordings the steps are the same; only the file comes from
:func:`~sklearn_stndt.datasets.fetch_nlb`.
"""

# %%
# The file
# --------
# One hundred reaches of 1.2 s, 142 neurons, of which 35 are held out, and hand velocity sampled at
# 1,000 Hz. The data are generated here and written with pynwb, so that the example needs no
# download.
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
# Load trials
# -----------
# ``load_nwb`` reads any NWB file with a units table, with bins of any width, trials around any
# event, and behaviour in the same bins.
trials = load_nwb(
    path, bin_width=0.02, align="move_onset_time", window=(-0.3, 0.6), behavior="hand_vel"
)
print("spikes:", trials.spikes.shape, " velocity:", trials.behavior["hand_vel"].shape)
trials.trials.head(3)

# %%
# Load the benchmark's arrays
# ---------------------------
# ``load_nlb`` cuts trials from the file as the benchmark does: from 250 ms before to 450 ms after
# movement onset, followed by 200 ms to forecast. Training trials are complete. In evaluation
# trials, held-out neurons and forecast bins are NaN, which the estimator treats as hidden. The
# benchmark's standard bins are 5 ms wide; bins of 20 ms are a separate track, with networks that
# train faster.
task = load_nlb(path, name="mc_maze_small_20")
print(task.DESCR)
print("X_train:", task.X_train.shape, " X_eval:", task.X_eval.shape)
print(f"hidden in X_eval: {np.isnan(task.X_eval).mean():.0%}")

# %%
# Network and baseline
# --------------------
# The held-out neurons and the forecast bins are set in advance: they are never input to the
# network, not even in training.
network = STNDTEstimator(
    heldout_neurons=task.heldout,
    forecast_bins=task.n_forward,
    max_epochs=250,
    random_state=0,
).fit(task.X_train)


# %%
# The baseline smooths visible counts, and predicts hidden entries by the mean time course of each
# neuron: a prediction that uses no relation between neurons.
class MeanCourse:
    """Smoothed counts; for hidden entries, the mean over training trials."""

    def __init__(self, width):
        self.width = width

    def fit(self, X):
        self.course_ = gaussian_filter1d(X.mean(axis=0), self.width, axis=0)
        return self

    def transform(self, X):
        smooth = gaussian_filter1d(np.nan_to_num(X), self.width, axis=1)
        return np.where(np.isnan(X), self.course_, smooth)


baseline = MeanCourse(width=3).fit(task.X_train)

# %%
# Submissions and scores
# ----------------------
# A submission is a dictionary of rates, which ``save_submission`` writes in the benchmark's format.
# ``evaluate`` accepts dictionaries and files, and returns the same scores as the benchmark's own
# evaluator. In bits per spike, 0 is the mean rate of each neuron.
submissions = {
    name: make_submission(model, task)
    for name, model in {"mean course": baseline, "STNDT": network}.items()
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
# Rates of a held-out neuron in four evaluation trials, in Hz, and its spikes, which are hidden from
# the network. In the last 200 ms (shaded), all neurons are hidden.
rates = network.transform(task.X_eval) / task.bin_width
neuron = task.heldout[np.nanmean(task.spikes_eval, axis=(0, 1))[task.heldout].argmax()]
time = -0.25 + task.bin_width * (np.arange(rates.shape[1]) + 0.5)
fig, axes = plt.subplots(1, 4, figsize=(8, 2.6), sharey=True, layout="constrained")
for trial, ax in enumerate(axes):
    spikes = task.spikes_eval[trial, :, neuron] / task.bin_width
    ax.bar(time, spikes, width=task.bin_width, color="0.8", label="spikes")
    ax.plot(
        time,
        baseline.course_[:, neuron] / task.bin_width,
        "--",
        color="#E69F00",
        label="mean course",
    )
    ax.plot(time, rates[trial, :, neuron], color="#0072B2", label="STNDT")
    ax.axvspan(0.45, 0.65, color="0.95", zorder=0)
    ax.set(title=f"trial {trial + 1}", xlabel="time from movement (s)")
axes[0].set_ylabel("rate (Hz)")
handles, labels = axes[0].get_legend_handles_labels()
fig.legend(handles, labels, loc="outside upper center", ncols=3, frameon=False)
plt.show()
folder.cleanup()
