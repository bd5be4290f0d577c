"""Plots of rates, attention, neuron importance, training and decoding.

Each class follows scikit-learn's Display convention: ``from_estimator`` computes and plots,
``from_predictions`` and similar methods plot what was computed before, and ``plot`` plots again,
for instance into other axes. Plotting requires matplotlib: ``pip install sklearn-stndt[plot]``.
"""

from sklearn_stndt.plotting.attention import AttentionDisplay
from sklearn_stndt.plotting.curves import EnsembleCurveDisplay, NeuronDroppingDisplay
from sklearn_stndt.plotting.decoding import DecodingDisplay
from sklearn_stndt.plotting.history import TrainingHistoryDisplay
from sklearn_stndt.plotting.psth import PSTHDisplay
from sklearn_stndt.plotting.rates import RatesDisplay
from sklearn_stndt.plotting.simulation import SimulationDisplay

__all__ = [
    "AttentionDisplay",
    "DecodingDisplay",
    "EnsembleCurveDisplay",
    "NeuronDroppingDisplay",
    "PSTHDisplay",
    "RatesDisplay",
    "SimulationDisplay",
    "TrainingHistoryDisplay",
]
