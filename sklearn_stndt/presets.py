"""Published hyperparameters of STNDT on the data sets of the Neural Latents Benchmark."""

from typing import Any, NamedTuple

from scipy import stats
from sklearn.utils import check_random_state


class _Published(NamedTuple):
    """Published settings for a data set, and ranges of the hyperparameter search."""

    n_layers: int
    n_heads: int
    max_epochs: int
    patience: int
    dropout: tuple[float, float]
    dropout_rates: tuple[float, float]
    dropout_embedding: tuple[float, float]
    band: tuple[int, int]  # range of bins, back or ahead, to which a layer attends
    lr: tuple[float, float]
    warmup_epochs: int
    mask_ratio: tuple[float, float]
    random_ratio: tuple[float, float]


_DATA_SETS = {
    "mc_maze": _Published(
        n_layers=4,
        n_heads=2,
        max_epochs=50_501,
        patience=3000,
        dropout=(0, 0.4),
        dropout_rates=(0, 0.4),
        dropout_embedding=(0, 0.6),
        band=(1, 100),
        lr=(1e-5, 1e-2),
        warmup_epochs=7000,
        mask_ratio=(0.1, 0.4),
        random_ratio=(0.3, 1),
    ),
    "mc_rtt": _Published(
        n_layers=4,
        n_heads=2,
        max_epochs=50_501,
        patience=3000,
        dropout=(0, 0.4),
        dropout_rates=(0, 0.6),
        dropout_embedding=(0, 0.5),
        band=(1, 100),
        lr=(1e-4, 1e-1),
        warmup_epochs=7000,
        mask_ratio=(0.1, 0.4),
        random_ratio=(0.6, 1),
    ),
    "area2_bump": _Published(
        n_layers=4,
        n_heads=1,
        max_epochs=40_001,
        patience=2500,
        dropout=(0, 0.6),
        dropout_rates=(0, 0.6),
        dropout_embedding=(0, 0.6),
        band=(4, 100),
        lr=(1e-5, 1e-2),
        warmup_epochs=7000,
        mask_ratio=(0.1, 0.6),
        random_ratio=(0.9, 1),
    ),
    "dmfc_rsg": _Published(
        n_layers=6,
        n_heads=2,
        max_epochs=50_501,
        patience=4000,
        dropout=(0.3, 0.7),
        dropout_rates=(0.3, 0.7),
        dropout_embedding=(0.3, 0.7),
        band=(40, 240),
        lr=(1e-5, 5e-3),
        warmup_epochs=2000,
        mask_ratio=(0.1, 0.4),
        random_ratio=(0.9, 1),
    ),
}


class ContextDistribution:
    """Distribution of `context`: bins (back, ahead), drawn independently.

    The published ranges are for one layer, whereas `context` is the sum over all layers.

    Parameters
    ----------
    low, high : int
        Smallest and largest number of bins for one layer.
    n_layers : int
        Number of layers.
    """

    def __init__(self, low: int, high: int, n_layers: int):
        self.low = low
        self.high = high
        self.n_layers = n_layers

    def rvs(self, random_state=None) -> tuple[int, int]:
        """Draw a context.

        Parameters
        ----------
        random_state : int, RandomState instance or None, default=None
            Seed.

        Returns
        -------
        (int, int)
            Numbers of bins back and ahead, over all layers.
        """
        band = stats.randint(self.low, self.high + 1)
        back, ahead = band.rvs(size=2, random_state=check_random_state(random_state))
        return int(back) * self.n_layers, int(ahead) * self.n_layers

    def __repr__(self) -> str:
        return f"ContextDistribution({self.low}, {self.high}, {self.n_layers})"


def paper(name: str) -> dict[str, Any]:
    """Parameters of the published model.

    Parameters
    ----------
    name : {"mc_maze", "mc_rtt", "area2_bump", "dmfc_rsg"}
        Data set of the Neural Latents Benchmark.

    Returns
    -------
    dict
        Parameters of :class:`sklearn_stndt.STNDTEstimator`, except those that depend on the data,
        `heldout_neurons` and `forecast_bins`, and `random_state`.

    Raises
    ------
    ValueError
        If there is no preset for `name`.

    Notes
    -----
    Some parts of the published code [1]_ have no effect and are left out: value and output
    projections of spatial attention, which receive no gradient; encoder passes of the two
    contrastive views, whose output is not used; and spans of masked entries, which its masking
    mode ignores.

    Other differences:

    - The readout is initialised at each neuron's mean rate, not at one spike per bin.
    - Losses of masked entries, of held-out neurons and of forecast bins are each averaged, then
      added.
    - Position embeddings are learned, activations are GELU instead of ReLU, and weights have
      torch's default initialisation, without T-Fixup.

    Searched hyperparameters have the values of the released configuration. Training for all 50,501
    epochs takes days on a CPU: pass a smaller `max_epochs` to follow the published schedule in
    less time.

    References
    ----------
    .. [1] T. Le, E. Shlizerman, "STNDT: Modeling neural population activity with a spatiotemporal
       transformer", NeurIPS 2022, arXiv:2206.04727.

    Examples
    --------
    >>> from sklearn_stndt import STNDTEstimator, presets
    >>> published = STNDTEstimator(**presets.paper("mc_maze"), heldout_neurons=0.25)
    >>> published.n_layers, published.d_model, published.contrastive_weight
    (4, None, 0.1)
    """
    published = _look_up(name)
    n_layers = published.n_layers
    return {
        "n_layers": n_layers,
        "n_heads": published.n_heads,
        "d_model": None,
        "dim_feedforward": 128,
        "dropout": 0.1,
        "dropout_embedding": 0.2,
        "dropout_rates": 0.2,
        "attention": "spatiotemporal",
        "context": (8 * n_layers, 4 * n_layers),
        "local_attention": False,
        "spatial_layers": "all",
        "stochastic_depth": 0.0,
        "n_spatial_heads": published.n_heads,
        "d_spatial": None,
        "input_scaling": "counts",
        "mask_ratio": 0.25,
        "token_ratio": 1.0,
        "random_ratio": 0.5,
        "contrastive_weight": 0.1,
        "contrastive_at": "embedding",
        "contrastive_mask_ratio": 0.05,
        "contrastive_token_ratio": 0.5,
        "contrastive_random_ratio": 0.5,
        "temperature": 0.07,
        "max_epochs": published.max_epochs,
        "batch_size": 64,
        "optimizer": "adamw",
        "lr": 1e-3,
        "warmup": 5000 / published.max_epochs,
        "weight_decay": 5e-5,
        "n_iter_no_change": published.patience,
        "calibration": False,
        "inference_passes": 1,
        "net_params": {"callbacks__clipping__gradient_clip_value": 200.0},
    }


def paper_search_space(name: str) -> dict[str, Any]:
    """Distributions of the published hyperparameter search, which drew 120 configurations.

    Parameters
    ----------
    name : {"mc_maze", "mc_rtt", "area2_bump", "dmfc_rsg"}
        Data set of the Neural Latents Benchmark.

    Returns
    -------
    dict
        Distributions by parameter name of :class:`sklearn_stndt.STNDTEstimator`, for
        :class:`sklearn.model_selection.RandomizedSearchCV` or for `param_distributions` of
        :class:`sklearn_stndt.BaggingEnsemble`.

    Raises
    ------
    ValueError
        If there is no preset for `name`.

    Notes
    -----
    The published search was Bayesian; these are its ranges and prior densities. The length of the
    warm-up is a fraction of the largest number of epochs here.

    Examples
    --------
    >>> from sklearn.model_selection import ParameterSampler
    >>> from sklearn_stndt import presets
    >>> space = presets.paper_search_space("mc_maze")
    >>> draw = next(iter(ParameterSampler(space, n_iter=1, random_state=0)))
    >>> bool(0.1 <= draw["mask_ratio"] <= 0.4), len(draw["context"])
    (True, 2)
    """
    published = _look_up(name)
    return {
        "dropout": _uniform(*published.dropout),
        "dropout_rates": _uniform(*published.dropout_rates),
        "dropout_embedding": _uniform(*published.dropout_embedding),
        "context": ContextDistribution(*published.band, published.n_layers),
        "lr": _uniform(*published.lr),
        "warmup": _uniform(0, published.warmup_epochs / published.max_epochs),
        "weight_decay": stats.loguniform(1e-8, 1e-3),
        "mask_ratio": _uniform(*published.mask_ratio),
        "token_ratio": stats.loguniform(0.5, 1),
        "random_ratio": _uniform(*published.random_ratio),
        "contrastive_weight": _uniform(0.01, 1),
        "contrastive_at": ["embedding"],
        "contrastive_mask_ratio": _uniform(0.05, 0.2),
        "contrastive_token_ratio": stats.loguniform(0.5, 1),
        "contrastive_random_ratio": _uniform(0.3, 1),
    }


def _uniform(low: float, high: float) -> Any:
    return stats.uniform(low, high - low)


def _look_up(name: str) -> _Published:
    if name not in _DATA_SETS:
        raise ValueError(f"There are presets for {', '.join(_DATA_SETS)}, not for {name!r}.")
    return _DATA_SETS[name]
