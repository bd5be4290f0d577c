"""Scores of inferred firing rates.

As in :mod:`sklearn.metrics`, every function takes the truth first and the estimate second, and
does not modify its arguments. The scores of the Neural Latents Benchmark equal those of its own
code. Functions with a parameter `check` warn of common mistakes that a score does not reveal, such
as rates in Hz; ``check=False`` turns these warnings off.
"""

from sklearn_stndt.metrics.bits import bits_per_spike, co_bps, fp_bps
from sklearn_stndt.metrics.decoding import velocity_r2
from sklearn_stndt.metrics.few_shot import few_shot_co_bps
from sklearn_stndt.metrics.likelihoods import (
    gaussian_bits,
    negative_binomial_bits,
    zero_inflated_gamma_bits,
)
from sklearn_stndt.metrics.scorers import co_smoothing_scorer, velocity_scorer
from sklearn_stndt.metrics.structure import psth_r2, tp_corr

__all__ = [
    "bits_per_spike",
    "co_bps",
    "co_smoothing_scorer",
    "few_shot_co_bps",
    "fp_bps",
    "gaussian_bits",
    "negative_binomial_bits",
    "psth_r2",
    "tp_corr",
    "velocity_r2",
    "velocity_scorer",
    "zero_inflated_gamma_bits",
]
