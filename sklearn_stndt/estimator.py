"""STNDTEstimator: spike counts in, single-trial firing rates out."""

import copy
import os
from dataclasses import replace
from numbers import Integral, Real
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import _fit_context, clone
from sklearn.utils._param_validation import HasMethods, Interval, RealNotInt, StrOptions
from sklearn.utils.validation import check_is_fitted

from sklearn_stndt._base import RateTransformer
from sklearn_stndt._containers import continued, relabelled, runs
from sklearn_stndt._failures import unchanged_if_failed
from sklearn_stndt._parameters import suggests_names
from sklearn_stndt._pretrained import as_pretrained
from sklearn_stndt._scoring import Scoring, score_hidden
from sklearn_stndt._validation import (
    check_added_neurons,
    check_counts,
    check_forecast,
    check_groups,
)
from sklearn_stndt.inference.causal import infer_causal
from sklearn_stndt.inference.rates import infer
from sklearn_stndt.network.likelihood import LIKELIHOODS, Likelihood
from sklearn_stndt.training.distillation import Lesson
from sklearn_stndt.training.readout import add_to_readout, check_can_grow
from sklearn_stndt.training.settings import Settings
from sklearn_stndt.training.steps import check_data, fit_network
from sklearn_stndt.training.summary import FitSummary, summarize
from sklearn_stndt.windows.out_of_core import empty_rates
from sklearn_stndt.windows.segments import as_segments, before_forecast, before_hidden

MOST = 1_000_000  # largest whole number as a parameter


class STNDTEstimator(RateTransformer):
    """Infer single-trial firing rates with a spatiotemporal transformer.

    The network is trained to predict hidden counts from the visible counts around them, in time
    (attention over bins) and across the population (attention over neurons). What can be predicted
    is the rate; what cannot is noise. See [1]_ for STNDT and [2]_ for NDT, its temporal half.

    The defaults suit most recordings. Five parameters matter first: `window` (for a continuous
    recording), `heldout_neurons` (for co-smoothing), `attention` ("temporal" is faster),
    `max_epochs` and `random_state`. All parameters by group, in the order in which they are
    described below:

    - Network: `n_layers`, `n_heads`, `d_model`, `dim_feedforward`, `dropout`,
      `dropout_embedding`, `dropout_rates`, `attention`, `context`, `causal`, `local_attention`,
      `spatial_layers`, `stochastic_depth`, `n_spatial_heads`, `d_spatial`, `input_scaling`,
      `likelihood`.
    - Objective: `mask_ratio`, `neuron_mask_ratio`, `token_ratio`, `random_ratio`,
      `heldout_neurons`, `forecast_bins`, `contrastive_weight`, `contrastive_at`,
      `contrastive_mask_ratio`, `contrastive_token_ratio`, `contrastive_random_ratio`,
      `temperature`.
    - Windows: `window`.
    - Training: `max_epochs`, `batch_size`, `optimizer`, `lr`, `warmup`, `weight_decay`,
      `early_stopping`, `validation_fraction`, `n_iter_no_change`, `calibration`, `refit`.
    - Run time: `device`, `n_threads`, `precision`, `random_state`, `verbose`, `warm_start`,
      `checkpoint_dir`, `callbacks`, `net_params`, `pretrained`.
    - Inference: `inference_passes`, `output`.

    Parameters
    ----------
    n_layers : int or "auto", default="auto"
        Number of transformer layers. "auto": 3, or 4 from 25,000 bins of training data.
    n_heads : int, default=4
        Heads of temporal attention per layer; `d_model` need not be a multiple of it.
    d_model : int or None, default=64
        Width of the network: dimensions of the embedding of a bin. None: one per neuron, as
        published.
    dim_feedforward : int or None, default=None
        Width inside the feed-forward blocks. None: four times the width of the network.
    dropout : float or "auto", default="auto"
        Dropout in the layers. "auto": .2 up to 50,000 spikes of training data, falling to .05 from
        250,000; with `pretrained`, .3 of these numbers.
    dropout_embedding, dropout_rates : float or None, default=None
        Dropout of the embedded input, and before the readout. None: 3/4 of `dropout`.
    attention : {"spatiotemporal", "temporal"}, default="spatiotemporal"
        STNDT, or NDT, which has no attention over neurons and is faster.
    context : (int, int) or None, default=None
        Bins back and ahead that may influence a bin by temporal attention, through all layers
        together, within a window. None: the whole window. ``(back, 0)`` does not make rates causal,
        see `causal`.
    causal : bool, default=False
        Infer the rate of each bin from this bin and earlier ones alone, as in a closed loop
        (:class:`~sklearn_stndt.streaming.RateStream`). Bins ahead in `context` are not used.
    local_attention : bool, default=True
        Penalise attention between distant bins, with learned length scales, so that each temporal
        head starts as a smoothing kernel. False: as published.
    spatial_layers : {"last", "all"}, default="last"
        Apply spatial attention once, after the last layer, or, as published, in every layer.
    stochastic_depth : float or "auto", default="auto"
        Probability that a training pass skips spatial attention [3]_, the slowest part of the
        network for many neurons. "auto": .75 from 128 neurons; 0 for fewer, or if `spatial_layers`
        is "all".
    n_spatial_heads : int, default=1
        Heads of spatial attention, whose weights are averaged.
    d_spatial : int or None, default=16
        Dimensions of spatial queries and keys. None: as many as bins in a window, as published.
    input_scaling : {"sqrt", "standardized", "counts"}, default="sqrt"
        Scaling of the input: square roots of counts, on a common scale or divided by each neuron's
        standard deviation; or, as published, counts times the square root of the number of neurons.
        Entries that are no counts are always divided by their standard deviation.
    likelihood : str or Likelihood, default="poisson"
        Distribution of the entries of X around their expected values. "poisson": spike counts.
        "negative_binomial": spike counts that vary more than Poisson counts, such as those of
        bursting cells, with a dispersion of each neuron. "gaussian": signals of any sign, such as
        dF/F, LFP power or EMG, with a noise of each neuron. "zero_inflated_gamma": entries that are
        0 or positive, such as deconvolved calcium [5]_. Or an object of a subclass of
        :class:`~sklearn_stndt.network.likelihood.Likelihood`. Whatever the names of methods and
        attributes say, "spikes", "counts" and "rates" are then entries and their expected values.
    mask_ratio : float or (float, float), default=(0.0, 0.8)
        Fraction of the visible entries that a training step masks; if a range, the fraction is
        drawn for each window.
    neuron_mask_ratio : float or (float, float), default=0.0
        Fraction of the neurons that a training step masks, for the whole window and instead of
        single entries, in half of the windows; if a range, the fraction is drawn for each window.
        With ``(0.0, 0.9)``, rates suffer less if channels are lost after `fit` (NaN in X). 0: none.
    token_ratio, random_ratio : float, default=1.0 and 0.0
        Fraction of the masked entries that is hidden, and fraction of the other masked entries that
        is replaced by random counts; the rest keep their counts.
    heldout_neurons : None, int, float or array-like, default=None
        Neurons that are always hidden from the input and always predicted (co-smoothing): a number
        or a fraction to be drawn at random, indices, or a boolean mask.
    forecast_bins : int, default=0
        Bins at the end of each window that are always hidden and always predicted. With `causal`,
        they are hidden in training only, and in half of the windows they begin anywhere, so that
        the network can forecast from any bin.
    contrastive_weight : float, default=0.0
        Weight of a contrastive loss between two additional corrupted views of each window.
    contrastive_at : {"encoder", "embedding"}, default="encoder"
        What this loss compares: the output of the encoder, averaged over bins, or, as published,
        the embedded input, so that it trains only the embedding.
    contrastive_mask_ratio, contrastive_token_ratio, contrastive_random_ratio : default=None
        `mask_ratio`, `token_ratio` and `random_ratio` of the two views. None: the same values.
    temperature : float, default=0.07
        Temperature of the contrastive loss.
    window : int or None, default=None
        Bins that the network sees at once. None: the longest trial; 128 for a continuous
        recording, or if groups are longer than 512 bins.
    max_epochs : int, "auto" or "long", default="auto"
        Maximum number of epochs. "auto": enough to see each bin 38 times, fewer (down to 25) where
        all neurons together have less than 1.5 spikes per bin on average; at least 130 updates and
        at most 4,000. With `pretrained`, a third of these passes, and at least 46 updates. "long":
        half as many again. An epoch is all windows once, or at most 600 batches of them.
    batch_size : int or "auto", default="auto"
        Windows per batch. "auto": 16 for up to 500 windows, else 32.
    optimizer : {"muon", "adamw"}, default="muon"
        Muon [4]_ for the matrices within layers and AdamW for all other parameters, or, as
        published, AdamW for all. Muon needs about a third of the updates.
    lr : float or "auto", default="auto"
        Maximum learning rate of AdamW, reached after the warm-up; it then decays to 0 as a cosine.
        The learning rate of Muon is 10/3 of it. "auto": .008 with Muon, .003 without; .8 of that
        with `pretrained`.
    warmup : float, default=0.05
        Fraction of the training during which the learning rate rises.
    weight_decay : float, default=0.01
        Decoupled weight decay.
    early_stopping : bool, default=True
        Set windows aside and choose weights by their held-out bits per spike, see
        `n_iter_no_change`. Forecast bins are part of that score. With fewer than two windows,
        training runs for all epochs and keeps the last weights.
    validation_fraction : float, default=0.1
        Fraction of the windows set aside, at most 2,048 windows.
    n_iter_no_change : int or "auto", default="auto"
        Epochs without a better score after which training stops; it then keeps the best weights.
        "auto": train for all epochs and keep the last weights, unless those of an earlier epoch
        are better by more than two standard errors over the windows set aside.
    calibration : bool, default=True
        After training, choose by the windows set aside: a Gaussian by which log-rates are smoothed
        in time; a factor by which their deviations from each neuron's mean are scaled, because
        networks trained on few trials exaggerate them; and the weight of a second estimate of the
        log-rates, by Gaussian-process factor analysis with the loadings of the network [6]_: at
        most .7, or .3 unless windows are whole trials; none with "zero_inflated_gamma". With
        `causal`, there is no smoothing, and factor analysis uses earlier bins alone; with
        `context`, there is only the factor. If no windows are set aside, there is no calibration,
        except with `pretrained`.
    refit : bool, default=False
        Train a second network, on all windows, those set aside included, for as many epochs and
        with the same calibration; it is the result. This doubles the time. Recordings of few
        trials gain most.
    device : str, default="auto"
        Torch device. "auto": a GPU if there is one.
    n_threads : int, default=1
        Threads of torch on a CPU. The last bits of results depend on it. Use 1 if several models
        are fitted in parallel (`n_jobs`).
    precision : {"float32", "bfloat16"}, default="float32"
        Precision of the factors in matrix products; all else, sums included, stays in float32.
        "bfloat16" is faster for wide networks (`d_model` of hundreds) on devices that have
        instructions for it, and makes no difference on others.
    random_state : int, RandomState instance or None, default=None
        Seed of weights, masks, dropout and validation split. With an int, results are
        bit-identical in every run.
    verbose : int, default=0
        1: updates done, held-out score and time left, as a bar in terminals and notebooks and as at
        most ten lines in other output; 2: also one line per epoch.
    warm_start : bool, default=False
        Continue training from the current weights at the next `fit`, and calibrate anew.
    checkpoint_dir : str, PathLike or None, default=None
        Directory to which training is written after an epoch, at most every two seconds. After a
        crash or a kill, the same `fit` (parameters, X and groups, device) continues, and ends
        with the same bits as without it; on a GPU, as far as its operations are deterministic. A
        finished `fit` is read and not trained again; without a `random_state`, this includes the
        seed. Each combination of parameters and X has its own file, so searches, folds and
        ensembles may use one directory. Files hold no counts, and nothing in them is executed. Of
        `callbacks`, attributes whose names end in an underscore are kept if they are plain values
        or have a `state_dict`; other state in `callbacks` and `net_params` starts anew.
    callbacks : list of skorch callbacks or None, default=None
        Additional callbacks for training; they are copied.
    net_params : dict or None, default=None
        Parameters of the skorch net, which override all others, e.g.
        ``{"optimizer": torch.optim.SGD}``.
    pretrained : estimator, str, path or None, default=None
        Fitted estimator of other neurons (another day, another animal) to start from, or the path
        of a saved one: this network starts with its core, that is with everything that is not tied
        to neurons, and learns embedding, tokens and readout of the neurons of X anew. For use in
        `cross_val_score` and searches, freeze it: ``pretrained=FrozenEstimator(day1)``. It
        determines the parameters of the network and the window. If `validation_fraction` gives
        fewer than 30 windows, none are set aside: all are used for training, smoothing and factor
        of the calibration are those of `pretrained`, and the weight of factor analysis is .6 (.3
        for held-out neurons, and unless windows are whole trials). See :meth:`adapt`.
    inference_passes : int or "auto", default="auto"
        Passes through the network over which `transform` averages log-rates and latent variables.
        In the first everything is visible, and each of the others hides another part of the counts,
        so that rates depend less on the noise of their own counts. Training takes as long as with
        1. "auto": 4, or 1 with `causal`, which allows no more.
    output : {"rates", "latents"}, default="rates"
        What `transform` returns: rates, or the `d_model` latent variables from which the network
        computes log-rates (before these are mixed with those of factor analysis, see
        `calibration`). Latent variables of two fits are not aligned.

    Attributes
    ----------
    net_ : skorch.NeuralNet
        The trained net, trimmed for prediction; ``net_.module_`` is the network.
    history_ : skorch.history.History
        Losses and held-out bits per spike (`valid_bits`) of each epoch.
    n_iter_ : int
        Number of epochs trained.
    window_ : int
        Bins that the network sees at once.
    heldout_neurons_ : ndarray of int
        Indices of the held-out neurons.
    device_ : str
        Device of the network.
    settings_ : Settings
        The parameters, with every "auto" resolved, in three dataclasses:
        ``settings_.network``, ``settings_.objective``, ``settings_.training``.
    summary_ : FitSummary
        Size of the network, values of "auto" parameters, updates, seconds, held-out score.
    likelihood_params_ : dict of ndarray of shape (n_neurons,)
        Numbers of each neuron that the likelihood has learned: `dispersion` of
        "negative_binomial", `noise` of "gaussian" (a standard deviation); `shape`, `event_rate` and
        `exponent` of "zero_inflated_gamma"; none of "poisson". They are the arguments of
        :func:`~sklearn_stndt.metrics.negative_binomial_bits` and its neighbours.
    n_features_in_, feature_names_in_ : int, ndarray of str
        Number of neurons; their names, if all were strings in fit.

    See Also
    --------
    BaggingEnsemble : The mean of several; more accurate, with a measure of disagreement.
    BinwiseRegressor : Decode behaviour from the rates of trials.

    Notes
    -----
    Every entry of X (one neuron in one bin) that is NaN is hidden from the network: neurons, bins,
    the padding of short trials, artefacts. Rates are inferred for hidden entries too.

    With ``causal=True``, each trial, and each run of rows of one group, is a stream that begins
    with its first bin. Every layer reaches back by up to one window, or by its share of `context`,
    and rates do not depend on any division of a recording into windows. If the data of fit are
    several trials, none longer than the window, the network knows how long ago a trial began, up to
    the length of the window; otherwise it does not.

    References
    ----------
    .. [1] T. Le, E. Shlizerman, "STNDT: Modeling neural population activity with a spatiotemporal
       transformer", NeurIPS 2022, arXiv:2206.04727.
    .. [2] J. Ye, C. Pandarinath, "Representation learning for neural population activity with
       Neural Data Transformers", 2021, arXiv:2108.01210.
    .. [3] G. Huang et al., "Deep networks with stochastic depth", ECCV 2016.
    .. [4] K. Jordan et al., "Muon: an optimizer for hidden layers in neural networks", 2024.
    .. [5] X.-X. Wei et al., "A zero-inflated gamma model for post-deconvolved calcium imaging
       traces", bioRxiv 637652, 2019.
    .. [6] B. Yu et al., "Gaussian-process factor analysis for low-dimensional single-trial analysis
       of neural population activity", Journal of Neurophysiology 2009.

    Examples
    --------
    >>> from sklearn_stndt import STNDTEstimator
    >>> from sklearn_stndt.datasets import make_reaches
    >>> spikes = make_reaches(n_trials=20, random_state=0).spikes
    >>> rates = STNDTEstimator(max_epochs=2, random_state=0).fit_transform(spikes)
    >>> rates.shape == spikes.shape
    True
    """

    settings_: Settings  # set by fit
    device_: str

    _parameter_constraints: dict = {
        "n_layers": [Interval(Integral, 1, MOST, closed="both"), StrOptions({"auto"})],
        "n_heads": [Interval(Integral, 1, MOST, closed="both")],
        "d_model": [Interval(Integral, 1, MOST, closed="both"), None],
        "dim_feedforward": [Interval(Integral, 1, MOST, closed="both"), None],
        "dropout": [Interval(Real, 0, 1, closed="left"), StrOptions({"auto"})],
        "dropout_embedding": [Interval(Real, 0, 1, closed="left"), None],
        "dropout_rates": [Interval(Real, 0, 1, closed="left"), None],
        "attention": [StrOptions({"spatiotemporal", "temporal"})],
        "context": ["array-like", None],
        "causal": ["boolean"],
        "local_attention": ["boolean"],
        "spatial_layers": [StrOptions({"last", "all"})],
        "stochastic_depth": [Interval(Real, 0, 1, closed="left"), StrOptions({"auto"})],
        "n_spatial_heads": [Interval(Integral, 1, MOST, closed="both")],
        "d_spatial": [Interval(Integral, 1, MOST, closed="both"), None],
        "input_scaling": [StrOptions({"sqrt", "standardized", "counts"})],
        "likelihood": [StrOptions(set(LIKELIHOODS)), Likelihood],
        "mask_ratio": [Interval(Real, 0, 1, closed="neither"), "array-like"],
        "neuron_mask_ratio": [Interval(Real, 0, 1, closed="left"), "array-like"],
        "token_ratio": [Interval(Real, 0, 1, closed="both")],
        "random_ratio": [Interval(Real, 0, 1, closed="both")],
        "heldout_neurons": [
            Interval(Integral, 1, MOST, closed="both"),
            Interval(RealNotInt, 0, 1, closed="neither"),
            "array-like",
            None,
        ],
        "forecast_bins": [Interval(Integral, 0, MOST, closed="both")],
        "contrastive_weight": [Interval(Real, 0, None, closed="left")],
        "contrastive_at": [StrOptions({"encoder", "embedding"})],
        "contrastive_mask_ratio": [Interval(Real, 0, 1, closed="neither"), "array-like", None],
        "contrastive_token_ratio": [Interval(Real, 0, 1, closed="both"), None],
        "contrastive_random_ratio": [Interval(Real, 0, 1, closed="both"), None],
        "temperature": [Interval(Real, 0, None, closed="neither")],
        "window": [Interval(Integral, 1, MOST, closed="both"), None],
        "max_epochs": [Interval(Integral, 1, MOST, closed="both"), StrOptions({"auto", "long"})],
        "batch_size": [Interval(Integral, 1, MOST, closed="both"), StrOptions({"auto"})],
        "optimizer": [StrOptions({"muon", "adamw"})],
        "lr": [Interval(Real, 0, None, closed="neither"), StrOptions({"auto"})],
        "warmup": [Interval(Real, 0, 1, closed="left")],
        "weight_decay": [Interval(Real, 0, None, closed="left")],
        "early_stopping": ["boolean"],
        "validation_fraction": [Interval(Real, 0, 1, closed="neither")],
        "n_iter_no_change": [Interval(Integral, 1, MOST, closed="both"), StrOptions({"auto"})],
        "calibration": ["boolean"],
        "refit": ["boolean"],
        "device": [str],
        "n_threads": [Interval(Integral, 1, MOST, closed="both")],
        "precision": [StrOptions({"float32", "bfloat16"})],
        "random_state": ["random_state"],
        "verbose": ["verbose"],
        "warm_start": ["boolean"],
        "checkpoint_dir": [str, os.PathLike, None],
        "callbacks": [list, None],
        "net_params": [dict, None],
        "pretrained": [HasMethods(["transform"]), str, os.PathLike, None],
        "inference_passes": [Interval(Integral, 1, MOST, closed="both"), StrOptions({"auto"})],
        "output": [StrOptions({"rates", "latents"})],
    }

    @suggests_names
    def __init__(
        self,
        *,
        n_layers="auto",
        n_heads=4,
        d_model=64,
        dim_feedforward=None,
        dropout="auto",
        dropout_embedding=None,
        dropout_rates=None,
        attention="spatiotemporal",
        context=None,
        causal=False,
        local_attention=True,
        spatial_layers="last",
        stochastic_depth="auto",
        n_spatial_heads=1,
        d_spatial=16,
        input_scaling="sqrt",
        likelihood="poisson",
        mask_ratio=(0.0, 0.8),
        neuron_mask_ratio=0.0,
        token_ratio=1.0,
        random_ratio=0.0,
        heldout_neurons=None,
        forecast_bins=0,
        contrastive_weight=0.0,
        contrastive_at="encoder",
        contrastive_mask_ratio=None,
        contrastive_token_ratio=None,
        contrastive_random_ratio=None,
        temperature=0.07,
        window=None,
        max_epochs="auto",
        batch_size="auto",
        optimizer="muon",
        lr="auto",
        warmup=0.05,
        weight_decay=1e-2,
        early_stopping=True,
        validation_fraction=0.1,
        n_iter_no_change="auto",
        calibration=True,
        refit=False,
        device="auto",
        n_threads=1,
        precision="float32",
        random_state=None,
        verbose=0,
        warm_start=False,
        checkpoint_dir=None,
        callbacks=None,
        net_params=None,
        pretrained=None,
        inference_passes="auto",
        output="rates",
    ):
        self.n_layers = n_layers
        self.n_heads = n_heads
        self.d_model = d_model
        self.dim_feedforward = dim_feedforward
        self.dropout = dropout
        self.dropout_embedding = dropout_embedding
        self.dropout_rates = dropout_rates
        self.attention = attention
        self.context = context
        self.causal = causal
        self.local_attention = local_attention
        self.spatial_layers = spatial_layers
        self.stochastic_depth = stochastic_depth
        self.n_spatial_heads = n_spatial_heads
        self.d_spatial = d_spatial
        self.input_scaling = input_scaling
        self.likelihood = likelihood
        self.mask_ratio = mask_ratio
        self.neuron_mask_ratio = neuron_mask_ratio
        self.token_ratio = token_ratio
        self.random_ratio = random_ratio
        self.heldout_neurons = heldout_neurons
        self.forecast_bins = forecast_bins
        self.contrastive_weight = contrastive_weight
        self.contrastive_at = contrastive_at
        self.contrastive_mask_ratio = contrastive_mask_ratio
        self.contrastive_token_ratio = contrastive_token_ratio
        self.contrastive_random_ratio = contrastive_random_ratio
        self.temperature = temperature
        self.window = window
        self.max_epochs = max_epochs
        self.batch_size = batch_size
        self.optimizer = optimizer
        self.lr = lr
        self.warmup = warmup
        self.weight_decay = weight_decay
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.n_iter_no_change = n_iter_no_change
        self.calibration = calibration
        self.refit = refit
        self.device = device
        self.n_threads = n_threads
        self.precision = precision
        self.random_state = random_state
        self.verbose = verbose
        self.warm_start = warm_start
        self.checkpoint_dir = checkpoint_dir
        self.callbacks = callbacks
        self.net_params = net_params
        self.pretrained = pretrained
        self.inference_passes = inference_passes
        self.output = output

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X: ArrayLike, y: Any = None, *, groups: ArrayLike | None = None) -> Self:
        """Train the network on spike counts.

        Parameters
        ----------
        X : array-like of shape (n_trials, n_bins, n_neurons) or (n_bins, n_neurons)
            Spikes per bin: trials, or one continuous recording in order of time; NaN where
            hidden.
        y : ignored
            For compatibility with pipelines.
        groups : array-like of shape (n_bins,) or (n_trials,), default=None
            Trial of each row of a 2D X; a window never spans two trials. With a 3D X, groups of
            trials, such as sessions, are ignored: they are for cross-validation.

        Returns
        -------
        self : STNDTEstimator

        Raises
        ------
        ValueError
            If X holds negative or infinite values, if X or one of its neurons is all NaN, or if
            a parameter does not fit the data.
        FloatingPointError
            If training diverges, also with a smaller learning rate. If that helps, there is a
            ConvergenceWarning.
        OSError
            If `checkpoint_dir` cannot be written, or has too little space.
        RuntimeError
            If another process is at the same training in `checkpoint_dir`.

        Warns
        -----
        ConvergenceWarning
            If the network has learnt nothing: after at least 130 updates (46 with `pretrained`),
            hidden counts in the windows set aside are predicted no better than by each neuron's
            mean rate, and after calibration neither. With fewer than 1,000 spikes in these windows,
            the score must be below 0 by more than chance. The warning says what to check.
        """
        with unchanged_if_failed(self):
            fit_network(self, X, groups)
        return self

    @_fit_context(prefer_skip_nested_validation=True)
    def _fit_to(
        self,
        X: ArrayLike,
        lessons: list[Lesson],
        groups: ArrayLike | None,
        known_likelihood: Likelihood | None = None,
    ) -> Self:
        """Train the network on rates instead of counts; see `BaggingEnsemble.distill`."""
        with unchanged_if_failed(self):
            fit_network(self, X, groups, lessons, known_likelihood)
        return self

    @property
    def summary_(self) -> FitSummary:
        """Size of the network, values of "auto" parameters, updates, seconds, held-out score.

        It prints as a small table, which ``print(estimator)`` and the HTML display show too. Its
        attributes are `network` and `auto`, which describe the network and the parameters that
        were "auto", `n_weights`, `n_windows`, `n_epochs`, `n_updates`, `seconds`, `device`, and
        `score` in `unit` after the epoch `epoch`, whose weights were kept; `refit` says whether a
        second network was then trained on all windows. The score is computed before calibration,
        and is None if no windows were set aside.
        """
        check_is_fitted(self)
        trained_on = self._trained_on
        return summarize(
            trained_on.get("auto", ()),
            self.settings_,
            self.history_,
            n_weights=sum(weight.numel() for weight in self.net_.module_.parameters()),
            device=self.device_,
            n_windows=trained_on["n_windows"],
        )

    def adapt(self, X: ArrayLike, *, groups: ArrayLike | None = None, **params: Any) -> Self:
        """Fit an estimator of other neurons that starts from what this one has learned.

        The neurons may be more, fewer or others: another day, another electrode, another animal.
        What this network has learned that is not tied to its neurons, its *core*, is the start.
        Embedding, tokens and readout are trained anew, so a few trials suffice where a fit from
        scratch needs many. No labels are needed.

        Parameters
        ----------
        X : array-like of shape (n_trials, n_bins, n_neurons) or (n_bins, n_neurons)
            Spikes per bin of the other neurons, in bins of the same width; NaN where hidden.
        groups : array-like of shape (n_bins,), default=None
            As in `fit`.
        **params
            Parameters of the new estimator that differ from those of this one, such as
            `random_state`. If `heldout_neurons` names neurons of this estimator, it must be given.

        Returns
        -------
        adapted : STNDTEstimator
            A fitted estimator of the neurons of X, with ``pretrained`` set to this one, frozen; a
            clone of it can be cross-validated. This estimator is unchanged.

        Raises
        ------
        ValueError
            As in `fit`; if this network has one channel per neuron (``d_model=None``); or if
            parameters contradict its core.

        Examples
        --------
        >>> from sklearn_stndt import STNDTEstimator
        >>> from sklearn_stndt.datasets import make_reach_days
        >>> first, second = make_reach_days(2, n_trials=20, random_state=0)
        >>> day1 = STNDTEstimator(max_epochs=2, random_state=0).fit(first.spikes)
        >>> day2 = day1.adapt(second.spikes[:5])
        >>> day2.transform(second.spikes).shape == second.spikes.shape
        True
        """
        check_is_fitted(self)
        if "heldout_neurons" not in params and np.ndim(self.heldout_neurons):
            raise ValueError(
                "heldout_neurons names neurons of the fitted population, but X may hold others. "
                "Pass it to adapt: heldout_neurons=None, or indices of the neurons of X."
            )
        adapted = clone(self).set_params(**{"pretrained": as_pretrained(self)} | params)
        return adapted.fit(X, groups=groups)

    def add_neurons(self, X: ArrayLike, *, groups: ArrayLike | None = None) -> Self:
        """Infer rates of further neurons too, after a few trials in which they were recorded.

        Nothing is trained again. Each new neuron gets a row of the readout, by Poisson regression
        of its spikes on the latents of the known neurons, with a prior from the rows of these.
        Rates of the known neurons stay as they are, and new neurons do not influence any rates:
        they are held out. To train a network that uses them, see :meth:`adapt`.

        Parameters
        ----------
        X : array-like of shape (n_trials, n_bins, n_all) or (n_bins, n_all)
            Spikes per bin: the neurons of `fit`, in the same order, and then the new ones; NaN
            where hidden.
        groups : array-like of shape (n_bins,), default=None
            As in `fit`.

        Returns
        -------
        extended : STNDTEstimator
            A fitted estimator of all neurons of X, whose `heldout_neurons_` include the new ones.
            This estimator is unchanged.

        Raises
        ------
        ValueError
            If X does not hold the neurons of `fit` and others, if a new one is all NaN, if the
            likelihood is not "poisson", or if the network has one channel per neuron
            (``d_model=None``).

        Examples
        --------
        >>> from sklearn_stndt import STNDTEstimator
        >>> from sklearn_stndt.datasets import make_reaches
        >>> spikes = make_reaches(n_trials=20, n_neurons=30, random_state=0).spikes
        >>> network = STNDTEstimator(max_epochs=2, random_state=0).fit(spikes[..., :25])
        >>> network.add_neurons(spikes[:5]).transform(spikes).shape
        (20, 50, 30)
        """
        check_is_fitted(self)
        module, n_known = self.net_.module_, self.n_features_in_
        check_can_grow(module)
        extended = copy.copy(self)
        counts, trials, _ = check_data(extended, X, groups, likelihood=module.likelihood)
        check_added_neurons(self, extended, counts)
        extended._trained_on = self._trained_on
        latents = self._infer(counts[..., :n_known], trials, "latents")
        extended.net_ = add_to_readout(self.net_, self.window_, latents, counts[..., n_known:])
        new = np.arange(n_known, counts.shape[-1])
        extended.heldout_neurons_ = np.concatenate([self.heldout_neurons_, new])
        heldout = tuple(extended.heldout_neurons_.tolist())
        objective = replace(self.settings_.objective, heldout_neurons=heldout)
        extended.settings_ = replace(self.settings_, objective=objective)
        extended.net_.objective = objective
        extended.likelihood_params_ = extended._scoring.params
        return extended

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        if hasattr(self, "net_"):  # skorch moves it if its device does not exist here
            self.device_ = str(self.net_.device)

    @property
    def _scoring(self) -> Scoring:
        return Scoring(self.net_.module_.likelihood.of(...))

    def score(self, X: ArrayLike, y: Any = None, *, groups: ArrayLike | None = None) -> float:
        """Bits per spike of hidden entries or, if these are no counts, bits per entry.

        If there are held-out neurons, these are scored (co-bps). Otherwise each entry is scored
        once while it is hidden, by a fixed set of complementary speckled masks. 0 is the score of
        each neuron's mean rate.

        Counts are scored as Poisson counts, whatever their likelihood, so that rates of all models
        can be compared (:func:`~sklearn_stndt.metrics.bits_per_spike`); for the log-likelihood of
        the model itself, see :meth:`log_likelihood`. Other entries are scored by their
        likelihood.

        Parameters
        ----------
        X : array-like of shape (n_trials, n_bins, n_neurons) or (n_bins, n_neurons)
            Spikes per bin, NaN where unknown.
        y : ignored
            For compatibility with pipelines.
        groups : array-like of shape (n_bins,), default=None
            As in `fit`.

        Returns
        -------
        float
            Higher is better.
        """
        return self._score(X, groups, self._scoring_when_fitted().score)

    def log_likelihood(self, X: ArrayLike, *, groups: ArrayLike | None = None) -> float:
        """Log-likelihood of hidden entries, by the likelihood of this estimator.

        Parameters
        ----------
        X : array-like of shape (n_trials, n_bins, n_neurons) or (n_bins, n_neurons)
            As in `score`, which hides the same entries.
        groups : array-like of shape (n_bins,), default=None
            As in `fit`.

        Returns
        -------
        float
            Gain over each neuron's mean, in bits. For counts it is per spike, and the reference is
            that of `score`, Poisson counts at each neuron's mean rate, so that the likelihoods of
            counts can be compared. For other entries it is `score`: per entry, and relative to the
            same distribution with the mean and the variance of each neuron.
        """
        return self._score(X, groups, self._scoring_when_fitted().log_likelihood)

    def _scoring_when_fitted(self) -> Scoring:
        check_is_fitted(self)
        return self._scoring

    def _score(self, X: ArrayLike, groups: ArrayLike | None, score: Any) -> float:
        counts = check_counts(self, X, reset=False)
        groups = check_groups(counts, groups, X)
        return score_hidden(
            lambda shown: self._infer(shown, groups), counts, self.heldout_neurons_, score
        )

    def forecast(self, X: ArrayLike, n_bins: int) -> Any:
        """Infer the rates of the bins after X.

        Parameters
        ----------
        X : array-like of shape (n_trials, n_bins_before, n_neurons) or (n_bins_before, n_neurons)
            Spikes per bin; only the last bins that fit into the window are used, or, with
            `causal`, those that the network reaches, and none before a gap in the clock of X.
        n_bins : int
            Bins to forecast, fewer than the window has. Fit with ``forecast_bins=n_bins``; bins
            beyond those trained are unreliable, and raise a warning.

        Returns
        -------
        rates : ndarray, TsdFrame, TsdTensor or DataArray of `n_bins` bins
            Expected spikes per bin, in the container of X, whose clock they continue.
        """
        check_is_fitted(self)
        counts = check_counts(self, X, reset=False)
        parts = runs(X)
        if parts is not None:
            counts = counts[parts == parts[-1]]
        trained = self.settings_.objective.forecast_bins
        check_forecast(n_bins, self.window_, trained)
        if self.settings_.network.causal:
            rates = self._infer(before_hidden(counts, n_bins), None)
            return continued(X, rates[..., -n_bins:, :])
        n_tail = max(n_bins, trained)
        rates = self._infer(before_forecast(counts, self.window_, n_tail), None)
        start = self.window_ - n_tail
        return continued(X, rates[..., start : start + n_bins, :])

    def get_feature_names_out(self, input_features: ArrayLike | None = None) -> NDArray:
        """Names of the columns of `transform`: of neurons, or latent0, latent1, ...

        Parameters
        ----------
        input_features : array-like of str, default=None
            Names of the neurons, if fit received none.

        Returns
        -------
        ndarray of str objects
        """
        if self.output == "rates":
            return super().get_feature_names_out(input_features)
        check_is_fitted(self)
        names = [f"latent{i}" for i in range(self.net_.module_.width)]
        return np.asarray(names, dtype=object)

    def _transformed(self, X: NDArray, groups: ArrayLike | None) -> NDArray:
        return self._infer(X, groups, self.output)

    def _in_container(self, X: Any, values: NDArray) -> Any:
        if self.output == "rates":
            return super()._in_container(X, values)
        return relabelled(X, values, self.get_feature_names_out().tolist(), "latent")

    def _simulate(self, X: NDArray, groups: ArrayLike | None, n_samples: int, draw: Any) -> NDArray:
        likelihood, means = self._scoring.likelihood, self._infer(X, groups)
        return np.stack([likelihood.sample(means, draw) for _ in range(n_samples)])

    def _infer(self, X: NDArray, groups: ArrayLike | None, kind: str = "rates") -> NDArray:
        segments = as_segments(X, check_groups(X, groups))
        values = empty_rates(X, None if kind == "rates" else self.net_.module_.width)
        out = values.reshape(-1, values.shape[-1])
        infer_any = infer_causal if self.settings_.network.causal else infer
        infer_any(self.net_, segments, self.window_, self.n_threads, self.precision, out, kind)
        return values
