"""Inspection of fitted networks: attention maps, neurons that matter, dropping curves, drift."""

from sklearn_stndt.inspection.attention import attention_maps
from sklearn_stndt.inspection.drift import drift
from sklearn_stndt.inspection.dropping import neuron_dropping_curve
from sklearn_stndt.inspection.importance import neuron_importance

__all__ = ["attention_maps", "drift", "neuron_dropping_curve", "neuron_importance"]
