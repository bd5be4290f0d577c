"""Plots of rates, attention, neuron importance, training and decoding.

Each class follows scikit-learn's Display convention: ``from_estimator`` computes and plots,
``from_predictions`` and similar methods plot what was computed before, and ``plot`` plots again,
for instance into other axes. Plotting requires matplotlib: ``pip install "sklearn-stndt[plot]"``.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
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

# Imported when first used: some displays need no torch, whose import takes seconds.
_MODULES = {
    "AttentionDisplay": "attention",
    "DecodingDisplay": "decoding",
    "EnsembleCurveDisplay": "curves",
    "NeuronDroppingDisplay": "curves",
    "PSTHDisplay": "psth",
    "RatesDisplay": "rates",
    "SimulationDisplay": "simulation",
    "TrainingHistoryDisplay": "history",
}


def __getattr__(name: str) -> Any:
    """Import a display that is used for the first time."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}", name=name)
    found = getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
