"""Decoding of behaviour, choices and stimuli from firing rates, bin by bin."""

from sklearn_stndt.decoding.alignment import LatentAligner
from sklearn_stndt.decoding.binwise import BinwiseClassifier, BinwiseRegressor

__all__ = ["BinwiseClassifier", "BinwiseRegressor", "LatentAligner"]
