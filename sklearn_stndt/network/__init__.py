"""The network in pure torch: model, attention, masking, losses."""

from sklearn_stndt.network.losses import (
    group_sizes,
    info_nce,
    loss_weights,
    masked_modelling_loss,
    poisson_nll,
)
from sklearn_stndt.network.masking import N_FOLDS, corrupt, draw_mask, speckled_folds
from sklearn_stndt.network.model import STNDT, NetworkOutput

__all__ = [
    "N_FOLDS",
    "STNDT",
    "NetworkOutput",
    "corrupt",
    "draw_mask",
    "group_sizes",
    "info_nce",
    "loss_weights",
    "masked_modelling_loss",
    "poisson_nll",
    "speckled_folds",
]
