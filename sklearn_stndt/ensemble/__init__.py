"""Ensembles: members are trained in parallel, selected and averaged."""

from sklearn_stndt.ensemble.bagging import BaggingEnsemble

__all__ = ["BaggingEnsemble"]
