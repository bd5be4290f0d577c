"""What a fitted network looks at: attention maps, important neurons, and what is lost with them."""

from .attention import attention_maps
from .dropping import neuron_dropping_curve
from .importance import neuron_importance

__all__ = ["attention_maps", "neuron_dropping_curve", "neuron_importance"]
