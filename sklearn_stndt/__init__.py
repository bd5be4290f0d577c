"""Single-trial firing rates from spike counts, with a spatiotemporal transformer."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
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

# Modules are imported when a name is first used: metrics and datasets do not need torch, whose
# import takes seconds.
_MODULES = {
    "BaggingEnsemble": "ensemble",
    "BinwiseClassifier": "decoding",
    "BinwiseRegressor": "decoding",
    "MultiSessionEstimator": "sessions",
    "STNDTEstimator": "estimator",
    "load": "persistence",
    "save": "persistence",
}
_PUBLIC_MODULES = {
    "datasets",
    "decoding",
    "ensemble",
    "estimator",
    "export",
    "inspection",
    "live",
    "metrics",
    "persistence",
    "plotting",
    "presets",
    "sessions",
    "streaming",
}


def __getattr__(name: str) -> Any:
    """Import what is used for the first time."""
    if name in _PUBLIC_MODULES:
        return import_module(f"{__name__}.{name}")
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}", name=name)
    found = getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, *_PUBLIC_MODULES})
