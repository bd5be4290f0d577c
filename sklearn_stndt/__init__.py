"""Single-trial firing rates from spike counts, with a spatiotemporal transformer."""

from sklearn_stndt.decoding import BinwiseClassifier, BinwiseRegressor
from sklearn_stndt.ensemble import BaggingEnsemble
from sklearn_stndt.estimator import STNDTEstimator
from sklearn_stndt.persistence import load, save
from sklearn_stndt.sessions import MultiSessionEstimator

__version__ = "0.1.0"
__all__ = [
    "BaggingEnsemble",
    "BinwiseClassifier",
    "BinwiseRegressor",
    "MultiSessionEstimator",
    "STNDTEstimator",
    "load",
    "save",
]
