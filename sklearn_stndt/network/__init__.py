"""The network in pure torch: model, temporal, spatial and population parts, likelihood, losses."""

from sklearn_stndt.network.causal_model import CausalSTNDT
from sklearn_stndt.network.causal_posterior import CausalPosterior
from sklearn_stndt.network.losses import (
    group_sizes,
    info_nce,
    loss_weights,
    masked_modelling_loss,
)
from sklearn_stndt.network.masking import (
    N_FOLDS,
    corrupt,
    draw_mask,
    inference_masks,
    mask_neurons,
    speckled_folds,
)
from sklearn_stndt.network.model import STNDT, NetworkOutput, NetworkSettings
from sklearn_stndt.network.posterior import LatentPosterior

__all__ = [
    "N_FOLDS",
    "STNDT",
    "CausalPosterior",
    "CausalSTNDT",
    "LatentPosterior",
    "NetworkOutput",
    "NetworkSettings",
    "corrupt",
    "draw_mask",
    "group_sizes",
    "inference_masks",
    "info_nce",
    "loss_weights",
    "mask_neurons",
    "masked_modelling_loss",
    "speckled_folds",
]
