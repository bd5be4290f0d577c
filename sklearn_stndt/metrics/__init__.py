"""Scores of firing rates, in NumPy, SciPy and scikit-learn alone.

Every function takes the truth first and the estimate second, as the functions of
:mod:`sklearn.metrics` do, and leaves its arguments as they were. The numbers are those of the
Neural Latents Benchmark. Where a score has a parameter `check`, it warns of mistakes that are
easily made and hard to see in a number, such as rates in Hz; ``check=False`` turns that off.
"""

from .bits import bits_per_spike, co_bps, fp_bps
from .decoding import velocity_r2
from .few_shot import few_shot_co_bps
from .scorers import co_smoothing_scorer, velocity_scorer
from .structure import psth_r2, tp_corr

__all__ = [
    "bits_per_spike",
    "co_bps",
    "co_smoothing_scorer",
    "few_shot_co_bps",
    "fp_bps",
    "psth_r2",
    "tp_corr",
    "velocity_r2",
    "velocity_scorer",
]
