"""Inspection of fitted networks: attention maps, important neurons, and dropping curves."""

from sklearn_stndt.inspection.attention import attention_maps
from sklearn_stndt.inspection.dropping import neuron_dropping_curve
from sklearn_stndt.inspection.importance import neuron_importance

__all__ = ["attention_maps", "neuron_dropping_curve", "neuron_importance"]
