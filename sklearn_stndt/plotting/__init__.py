"""Pictures of rates, attention, importance, training and decoding.

Each class follows scikit-learn's Display convention: ``from_estimator`` computes and draws,
``from_predictions`` and its like draw what was computed before, ``plot`` draws again, for instance
into other axes. They need matplotlib: ``pip install sklearn-stndt[plot]``.
"""

from .attention import AttentionDisplay
from .curves import EnsembleCurveDisplay, NeuronDroppingDisplay
from .decoding import DecodingDisplay
from .history import TrainingHistoryDisplay
from .psth import PSTHDisplay
from .rates import RatesDisplay

__all__ = [
    "AttentionDisplay",
    "DecodingDisplay",
    "EnsembleCurveDisplay",
    "NeuronDroppingDisplay",
    "PSTHDisplay",
    "RatesDisplay",
    "TrainingHistoryDisplay",
]
