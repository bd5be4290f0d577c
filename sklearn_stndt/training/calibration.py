"""Choose on validation windows how inferred rates are smoothed, scaled and mixed."""

from typing import NamedTuple

import numpy as np
import torch
from scipy.optimize import minimize_scalar
from torch import Tensor

from sklearn_stndt.network import STNDT, CausalPosterior, CausalSTNDT, LatentPosterior
from sklearn_stndt.network.cost import inference_batch_size
from sklearn_stndt.network.layers import smoothing_kernel
from sklearn_stndt.network.likelihood import Likelihood
from sklearn_stndt.training.hidden import Predictions, Rows, predict_hidden, window_losses
from sklearn_stndt.training.net import MaskedModellingNet
from sklearn_stndt.windows.cutting import Windows

GAINS = (0.2, 2.0)  # bounds, for recordings that hardly constrain the gain
GAIN_PRECISION = 1e-3
WIDTHS = (0.0, 0.4, 0.6, 0.8, 1.0, 1.3, 1.6, 2.0, 2.5, 3.2, 4.0)  # of smoothing, in bins
SHARES = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7)  # of log-rates that a posterior of latents infers
# of them, in a network with so few trials that none are set aside, or a single window
FEW_TRIALS_SHARES = {"heldin": 0.6, "heldout": 0.3}
# in windows that begin anywhere: where place cells have few bins, more of it loses position
MOST_CONTINUOUS = 0.3
TAUGHT_SHARES = {"heldin": 0.3, "heldout": 0.1}  # in a network that has learned calibrated rates
N_ERRORS = 0.5  # standard errors by which a likelihood may be below the highest
MAX_POSTERIOR_ENTRIES = 2**21  # entries of log-rates from which latents are found
MAX_POSTERIOR_BINS = 1000  # of a window: covariances grow with their square


class Calibration(NamedTuple):
    """What `calibrate` has chosen.

    Attributes
    ----------
    width : float
        Of smoothing, in bins.
    gains, shares : dict of float
        Of the groups that have hidden spikes, under "heldin" and "heldout". No shares: there is no
        posterior.
    """

    width: float
    gains: dict[str, float]
    shares: dict[str, float]


@torch.no_grad()
def calibrate(
    net: MaskedModellingNet, validation: Windows, training: Windows | None = None
) -> Calibration:
    r"""Smooth log-rates, scale their deviations from the mean, and mix them with a posterior's.

    A network that reads the counts of a bin passes a part of their noise on to the rates of that
    bin; a Gaussian along bins removes it. Its width is the smallest in `WIDTHS` whose likelihood of
    hidden entries is within `N_ERRORS` standard errors, over windows, of the highest. There is no
    smoothing if `context` or `causal` limits the bins that influence a rate.

    Log-rates of a network trained on few trials also deviate further from the mean than unseen
    spikes support. One gain g for held-in and one for held-out neurons,

    .. math:: r \leftarrow \bar r + g\,(r - \bar r) + \delta,

    are chosen by the likelihood of hidden entries, too; :math:`\delta` preserves the mean rate. For
    held-in neurons it is the smallest gain within `N_ERRORS` standard errors of the most likely
    one, which hardly lowers the likelihood, and the squared error of rates more. For held-out ones
    it is the most likely gain; if that is below 1, the nearest to 1 within the same margin, because
    a few windows of a recording that changes ask for far too small a gain.

    Last, a share of the log-rates is inferred by a `LatentPosterior`, unless `context` limits the
    bins, the likelihood has no `gradient`, or windows have more than 1,000 bins. Of the
    `SHARES` within `N_ERRORS` standard errors of the most likely one, it is the largest for held-in
    neurons, whose rates it improves more than the likelihood says, and the smallest for held-out
    ones. With a single validation window, these are `few_trials_shares`. Unless each training
    window is a trial, shares are at most `MOST_CONTINUOUS`.

    Parameters
    ----------
    net : MaskedModellingNet
        Trained net; the smoothing, gain, shift and posterior of its network are modified.
    validation : Windows
        Windows not used for training.
    training : Windows or None, default=None
        Windows used for training, in which the posterior finds latents; None: no posterior.

    Returns
    -------
    Calibration
    """
    module: STNDT = net.module_
    module.posterior = None
    likelihood = module.likelihood.of(...)
    width = 0.0
    module.smoothing.width.zero_()
    predictions, rows = predict_hidden(net, validation)
    if _is_free(module) and (predictions.spikes * predictions.scored).any():
        width, log_rates = _smoothed(predictions, rows, likelihood)
        module.smoothing.width.fill_(width)
        predictions = predictions._replace(log_rates=log_rates)
    center = _mean(predictions.log_rates, predictions.known)  # (n_neurons,)
    gains = {}
    for name, group in groups_of(net).items():
        parts, of_group = predictions.of(group), likelihood.of(group)
        if not (parts.spikes * parts.scored).any():
            continue
        best = minimize_scalar(
            _loss,
            bounds=GAINS,
            args=(of_group, center[group], parts),
            method="bounded",
            options={"xatol": GAIN_PRECISION},
        )
        gain = float(best.x)
        target = GAINS[0] if name == "heldin" else max(gain, 1.0)
        gain = _gain_toward(target, gain, of_group, center[group], parts, rows)
        gains[name] = gain
        _, shift = _scaled(gain, of_group, center[group], parts)
        readout = module.readout
        index = torch.where(group)[0].to(readout.gain.device)
        readout.gain[index] *= gain
        moved = ((1 - gain) * center[group] + shift).to(readout.shift)
        readout.shift[index] = gain * readout.shift[index] + moved
    shares = {} if training is None else _add_posterior(net, validation, training)
    return Calibration(width, gains, shares)


def _is_free(module: STNDT) -> bool:
    """Whether all bins of a window may influence each rate."""
    return module.settings.context is None and not module.settings.causal


def _add_posterior(
    net: MaskedModellingNet, validation: Windows, training: Windows
) -> dict[str, float]:
    """Choose the shares of a posterior; without any, the network has none."""
    module: STNDT = net.module_
    posterior = posterior_of(net, training)
    if posterior is None:
        return {}
    predictions, rows = predict_hidden(net, validation)
    size = inference_batch_size(module, validation.window, validation.rows.shape[1])
    everyone = module.likelihood.of(...)
    batches = zip(*(part.split(size) for part in predictions), strict=True)
    estimates = torch.cat(
        # log-rates, spikes, shown
        [posterior.estimate(b[0], b[1], b[-1], everyone) for b in batches]
    )
    shares = {}
    allowed = [share for share in SHARES if share <= _largest_share(training)]
    for name, group in groups_of(net).items():
        parts, likelihood = predictions.of(group), everyone.of(group)
        if not (parts.spikes * parts.scored).any():
            continue
        mixtures = (torch.lerp(parts.log_rates, estimates[..., group], share) for share in allowed)
        losses = [window_losses(likelihood, mixed, parts, rows) for mixed in mixtures]
        totals = [float(of_windows.sum()) for of_windows in losses]
        best = int(np.argmin(totals))
        if len(losses[best]) < 2:  # no standard error
            shares[name] = few_trials_shares(training)[name]
            continue
        within = [best, *np.flatnonzero([_within_errors(one, losses[best]) for one in losses])]
        shares[name] = allowed[max(within) if name == "heldin" else min(within)]
    return _set_shares(net, posterior, shares)


def _set_shares(
    net: MaskedModellingNet, posterior: LatentPosterior, shares: dict[str, float]
) -> dict[str, float]:
    """Give a network a posterior with these shares, unless all are 0."""
    groups = groups_of(net)
    for name, share in shares.items():
        posterior.weight[groups[name]] = share
    if posterior.weight.any():
        net.module_.posterior = posterior.to(net.module_.readout.weight.device)
    return shares


def few_trials_shares(training: Windows) -> dict[str, float]:
    """Shares of a posterior without validation windows, under the names of `groups_of`."""
    largest = _largest_share(training)
    return {name: min(share, largest) for name, share in FEW_TRIALS_SHARES.items()}


def _largest_share(training: Windows) -> float:
    """Share of the log-rates that a posterior may infer."""
    # whole trials: each window is the last of its segment
    return SHARES[-1] if training.final.all() else MOST_CONTINUOUS


@torch.no_grad()
def posterior_of(net: MaskedModellingNet, training: Windows) -> LatentPosterior | None:
    """Posterior of a network's latents in training windows; None if it can have none."""
    module: STNDT = net.module_
    likelihood: Likelihood = module.likelihood
    if module.settings.context is not None or not likelihood.has_derivatives:
        return None
    if len(training) < 2 or training.window > MAX_POSTERIOR_BINS:
        return None
    net.module_.eval()
    size = inference_batch_size(module, training.window, training.rows.shape[1])
    most = max(MAX_POSTERIOR_ENTRIES // (training.window * training.rows.shape[1]), 2)
    chosen = np.linspace(0, len(training) - 1, min(most, len(training))).astype(int)
    parts = []
    for start in range(0, len(chosen), size):
        batch = net.split_visible(training.__getitems__(chosen[start : start + size])[0])
        log_rates = net.module_(batch.spikes, batch.visible).log_rates
        parts.append([part.cpu() for part in (log_rates, batch.spikes, batch.known)])
    log_rates, spikes, known = (torch.cat(part) for part in zip(*parts, strict=True))
    on_cpu = likelihood.of(...)
    posterior = LatentPosterior.of(log_rates, known, on_cpu)
    posterior.refine(log_rates, spikes, known, on_cpu)
    if isinstance(module, CausalSTNDT):
        hidden = groups_of(net)["heldout"]
        return CausalPosterior.filtering(posterior, hidden, restarts=not module.in_trials)
    return posterior


def groups_of(net: MaskedModellingNet) -> dict[str, Tensor]:
    """Which neurons, (n_neurons,) bool, share a gain, under the names of `calibrate`."""
    heldout = torch.zeros(len(net.module_.readout.gain), dtype=torch.bool)
    heldout[torch.as_tensor(net.objective.heldout_neurons, dtype=torch.long)] = True
    return {"heldin": ~heldout, "heldout": heldout}


@torch.no_grad()
def calibrate_as(
    net: MaskedModellingNet,
    width: float,
    gain: float | Tensor,
    windows: Windows,
    shares: dict[str, float] | None = None,
    training: Windows | None = None,
) -> None:
    """Smooth, scale and mix log-rates by numbers that were chosen for another network.

    Parameters
    ----------
    net : MaskedModellingNet
        Trained net, without calibration; smoothing, gain and shift of its network are modified.
    width : float
        Of the Gaussian, in bins.
    gain : float or Tensor of shape (n_neurons,)
        Factor of the present gain.
    windows : Windows
        Windows over which mean rates are preserved; those used for training will do.
    shares : dict of float, optional
        Shares of a posterior, under the names of `groups_of`; None: there is none.
    training : Windows, optional
        Windows in which the posterior finds latents; None: `windows`.
    """
    module: STNDT = net.module_
    module.posterior = None
    module.smoothing.width.zero_()
    predictions, rows = predict_hidden(net, windows, n_folds=1)
    module.smoothing.width.fill_(width)
    log_rates = _smooth(predictions.log_rates, rows.bin_visible, width)
    predictions = predictions._replace(log_rates=log_rates)
    readout = module.readout
    gain = torch.as_tensor(gain).to(readout.gain)
    center = _mean(log_rates, predictions.known)
    _, shift = _scaled(gain.cpu(), module.likelihood.of(...), center, predictions)
    moved = ((1 - gain.cpu()) * center + shift).to(readout.shift)
    readout.shift.copy_(gain * readout.shift + moved)
    readout.gain.mul_(gain)
    if shares and any(shares.values()):
        posterior = posterior_of(net, windows if training is None else training)
        if posterior is not None:
            _set_shares(net, posterior, shares)


def calibrate_taught(net: MaskedModellingNet, windows: Windows) -> None:
    """Give a network that has learned calibrated rates a posterior, with `TAUGHT_SHARES`.

    Its rates are neither smoothed nor scaled.

    Parameters
    ----------
    net : MaskedModellingNet
        Trained net; the posterior of its network is modified.
    windows : Windows
        Counts in which the posterior finds latents.
    """
    posterior = posterior_of(net, windows)
    if posterior is not None:
        _set_shares(net, posterior, TAUGHT_SHARES)


@torch.no_grad()
def remove_calibration(module: STNDT) -> None:
    """Set a network to what it was before calibration."""
    module.posterior = None
    module.smoothing.width.zero_()
    module.readout.gain.fill_(1.0)
    module.readout.shift.zero_()


def shares_of(net: MaskedModellingNet) -> dict[str, float]:
    """Shares of a network's posterior, under the names of `groups_of`; none: empty."""
    posterior = net.module_.posterior
    if posterior is None:
        return {}
    weights = posterior.weight.cpu()
    return {name: float(weights[g].max()) for name, g in groups_of(net).items() if g.any()}


def _smoothed(predictions: Predictions, rows: Rows, likelihood: Likelihood) -> tuple[float, Tensor]:
    """Width in bins, and the log-rates smoothed by it."""
    losses = []
    for width in WIDTHS:
        smooth = _smooth(predictions.log_rates, rows.bin_visible, width)
        losses.append(window_losses(likelihood, smooth, predictions, rows))
    best = min(losses, key=lambda of_windows: float(of_windows.sum()))
    chosen = 0.0  # with a single window, there is no standard error
    if len(best) > 1:
        within = (_within_errors(of_windows, best) for of_windows in losses)
        chosen = next(w for w, is_within in zip(WIDTHS, within, strict=True) if is_within)
    return chosen, _smooth(predictions.log_rates, rows.bin_visible, chosen)


def _within_errors(losses: Tensor, best: Tensor) -> bool:
    """Whether losses of windows are higher than the best by `N_ERRORS` standard errors at most."""
    excess = losses - best  # (n_windows,)
    return bool(excess.mean() <= N_ERRORS * excess.std() / len(excess) ** 0.5)


def _gain_toward(
    target: float,
    best: float,
    likelihood: Likelihood,
    center: Tensor,
    parts: Predictions,
    rows: Rows,
) -> float:
    """Gain nearest to a target whose likelihood is within errors of the highest, by bisection."""

    def losses(gain: float) -> Tensor:
        scaled, _ = _scaled(gain, likelihood, center, parts)
        return window_losses(likelihood, scaled, parts, rows)

    lowest = losses(best)
    if len(lowest) < 2:
        return best
    while abs(best - target) > GAIN_PRECISION:
        middle = (target + best) / 2
        if _within_errors(losses(middle), lowest):
            best = middle
        else:
            target = middle
    return best


def _smooth(log_rates: Tensor, bin_visible: Tensor, width: float) -> Tensor:
    if not width:
        return log_rates
    return smoothing_kernel(bin_visible, torch.tensor(width)) @ log_rates


def _mean(log_rates: Tensor, known: Tensor) -> Tensor:
    """Mean log-rate of each neuron over known entries, shape (n_neurons,)."""
    total = torch.where(known, log_rates, 0.0).sum((0, 1), dtype=torch.float64)  # (n_neurons,)
    return total / known.sum((0, 1)).clamp(min=1)


def _scaled(
    gain: float | Tensor, likelihood: Likelihood, center: Tensor, parts: Predictions
) -> tuple[Tensor, Tensor]:
    """Scaled log-rates, and the shift in them, (n_neurons,), that preserves each mean rate."""
    scaled = center + gain * (parts.log_rates - center)
    shift = likelihood.shift(parts.log_rates, scaled, parts.known)
    return scaled + shift, shift


def _loss(gain: float, likelihood: Likelihood, center: Tensor, parts: Predictions) -> float:
    scaled, _ = _scaled(gain, likelihood, center, parts)
    nll = likelihood.nll(scaled, parts.spikes)
    return float(torch.where(parts.scored, nll, 0.0).sum(dtype=torch.float64))
