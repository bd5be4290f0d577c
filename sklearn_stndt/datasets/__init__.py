"""Data to work with: generators whose true rates are known, recordings, and the benchmark."""

from .archive import fetch_nlb
from .binning import align_to_events, bin_spikes, bin_trials
from .nlb import load_nlb
from .nwb import load_nwb
from .reaches import make_reaches
from .submission import evaluate, load_submission, make_submission, save_submission
from .synthetic import make_chaotic_rnn, make_lorenz

__all__ = [
    "align_to_events",
    "bin_spikes",
    "bin_trials",
    "evaluate",
    "fetch_nlb",
    "load_nlb",
    "load_nwb",
    "load_submission",
    "make_chaotic_rnn",
    "make_lorenz",
    "make_reaches",
    "make_submission",
    "save_submission",
]
