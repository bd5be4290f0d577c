"""Ensembles: many members, trained side by side, selected, and averaged."""

from sklearn_stndt.ensemble.bagging import BaggingEnsemble

__all__ = ["BaggingEnsemble"]
