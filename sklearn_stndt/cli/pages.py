"""Texts of ``--help``."""

ABOUT = """\
Single-trial firing rates from spikes, by a spatiotemporal neural data
transformer, without writing Python.

  rates      infer the firing rates of a recording and write them to a file
  decode     predict behaviour, such as hand velocity, from the rates
  benchmark  train on a data set of the Neural Latents Benchmark and make a
             submission

For a command, its options and examples:
  python -m sklearn_stndt rates --help
"""

RATES = """\
Infer single-trial firing rates of a recording, and write them to a file.

Reads spike times (.nwb, .mat, .npz, .csv) or spike counts (.npy, .npz, .mat,
.csv), trains a network on them, and writes the rate of every neuron in every
bin, in Hz. No behaviour and no labels are needed.

A fifth of the trials is set aside before training. In these, spikes are hidden
and predicted from those around them; printed are the bits per spike of this
prediction, beside those of Gaussian smoothing whose width was chosen on the
training trials. 0 is the score of each neuron's mean rate. The rates that are
written are those of all trials.
"""

RATES_MORE = """\
what is written
  .nwb        a copy of the input with a processing module "sklearn_stndt":
              the time series "rates" in Hz with one row per bin,
              "rates_columns" (the units), and "rates_trials" (the rows of each
              trial). The input is never changed.
  .npz, .mat  rates         in Hz, trials x bins x neurons or bins x neurons,
                            NaN after the end of a short trial
              bin_centers   seconds from the event, or from the start of the
                            trial or recording
              session_time  the same on the clock of the file, where it has one
              columns       identifiers of the neurons
              trials        identifiers of the trials (in NWB, their id)
              held_out      whether the trial (or bin) was set aside
              bits_per_spike, bits_per_spike_smoothing, bin_width, unit,
              description

examples
  Rates around each movement, into a copy of the file:
    python -m sklearn_stndt rates session.nwb --align move_onset_time \\
        --window -0.2 0.8 --out rates.nwb

  The whole recording in bins of 10 ms; keep the network:
    python -m sklearn_stndt rates session.nwb --no-trials --bin-width 0.01 \\
        --out rates.npz --model model.stndt

  Counts from MATLAB, neurons x bins x trials, in bins of 20 ms:
    python -m sklearn_stndt rates session.mat --counts counts \\
        --axes neurons,bins,trials --bin-width 0.02 --out rates.mat

  Another recording of the same neurons, with the network that was kept:
    python -m sklearn_stndt rates later.nwb --no-trials --bin-width 0.01 \\
        --load model.stndt --out later.npz
"""

DECODE = """\
Predict behaviour from single-trial firing rates, in cross-validation.

Trials are divided at random into folds, a continuous recording into
consecutive ones. For each fold, a network is trained on the spikes of the
others, and ridge regression from its rates to the behaviour is fitted to them;
penalty and lag are chosen within them. Printed is R2 in the fold left out,
beside that of the same decoder from smoothed spikes. 1 is perfect; 0 is no
better than the mean.
"""

DECODE_MORE = """\
what is written
  .nwb        a copy of the input with a processing module "sklearn_stndt":
              the time series "decoded", with "decoded_columns" and
              "decoded_trials"
  .npz, .mat  decoded and truth (trials x bins x channels, or bins x channels),
              r2, r2_smoothing, and the same clock as for rates

examples
  Cursor velocity around each movement:
    python -m sklearn_stndt decode session.nwb --target cursor_vel \\
        --align move_onset_time --window -0.2 0.8

  Two columns of a table of counts; predictions to a file:
    python -m sklearn_stndt decode session.csv --bin-width 0.02 \\
        --target vel_x vel_y --out decoded.mat
"""

BENCHMARK = """\
Train on a data set of the Neural Latents Benchmark, and make a submission.

Reads the benchmark's files (.h5 with training input, evaluation input and, if
you have it, target; or .nwb), trains a network to which the held-out neurons
and the bins to forecast are never shown, infers the rates of the evaluation
trials, and writes a submission. If the files hold what is to be predicted, it
prints the benchmark's scores. From the NWB file of the training trials alone,
the benchmark's validation trials are scored.
"""

BENCHMARK_MORE = """\
examples
  A file on your disk:
    python -m sklearn_stndt benchmark mc_maze_small train.nwb \\
        --out submission.h5

  In bins of 20 ms, from the DANDI archive (needs the extra dandi):
    python -m sklearn_stndt benchmark mc_maze_small_20 --download \\
        --out submission.h5
"""
