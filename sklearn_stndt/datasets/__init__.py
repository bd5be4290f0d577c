"""Synthetic data with known rates, recordings, and the Neural Latents Benchmark."""

from sklearn_stndt.datasets.archive import fetch_nlb
from sklearn_stndt.datasets.binning import align_to_events, bin_spikes, bin_trials
from sklearn_stndt.datasets.caiman import load_caiman
from sklearn_stndt.datasets.calcium import make_calcium
from sklearn_stndt.datasets.nlb import load_nlb
from sklearn_stndt.datasets.nwb import load_nwb
from sklearn_stndt.datasets.ophys import load_nwb_ophys
from sklearn_stndt.datasets.padding import pad_trials
from sklearn_stndt.datasets.reaches import make_reach_days, make_reaches
from sklearn_stndt.datasets.signals import align_signals, bin_signal_trials, bin_signals
from sklearn_stndt.datasets.submission import (
    evaluate,
    load_submission,
    make_submission,
    save_submission,
)
from sklearn_stndt.datasets.suite2p import load_suite2p
from sklearn_stndt.datasets.synthetic import make_chaotic_rnn, make_lorenz

__all__ = [
    "align_signals",
    "align_to_events",
    "bin_signal_trials",
    "bin_signals",
    "bin_spikes",
    "bin_trials",
    "evaluate",
    "fetch_nlb",
    "load_caiman",
    "load_nlb",
    "load_nwb",
    "load_nwb_ophys",
    "load_submission",
    "load_suite2p",
    "make_calcium",
    "make_chaotic_rnn",
    "make_lorenz",
    "make_reach_days",
    "make_reaches",
    "make_submission",
    "pad_trials",
    "save_submission",
]
