"""Readout of neurons that a trained network has not seen, from a few trials of them."""

import copy

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize
from sklearn.covariance import ledoit_wolf
from torch import Tensor

from sklearn_stndt.network import STNDT
from sklearn_stndt.network.core import with_more_neurons
from sklearn_stndt.network.cost import inference_batch_size
from sklearn_stndt.network.likelihood import Poisson
from sklearn_stndt.network.population import ReadOut
from sklearn_stndt.training.net import MaskedModellingNet
from sklearn_stndt.windows.cutting import Windows

PRIOR_SHARE = 0.7  # of the covariance of known weights, which their own errors enlarge
LEAST_SPREAD = 1.0  # standard deviation of biases (log-rates), if that of known neurons is smaller
FEWEST_KNOWN = 5  # neurons whose weights say how those of others are distributed
MOST_BINS = 2**14  # for a regression of held-out neurons
HIGHEST = 15.0  # log-rate, as in the network


def check_can_grow(network: STNDT) -> None:
    """Refuse a network to which no neurons can be added.

    Raises
    ------
    ValueError
        If it has one channel per neuron, or a likelihood other than Poisson.
    """
    if network.settings.d_model is None:
        raise ValueError(
            "This network has one channel per neuron (d_model=None), so that neurons cannot be "
            "added. Fit with a width, such as the default d_model=64."
        )
    if type(network.likelihood) is not Poisson:
        raise ValueError(
            "Neurons can be added to a network of Poisson counts, but this one has likelihood="
            f"{network.settings.likelihood!r}. Use adapt, which trains a network of all neurons."
        )


def add_to_readout(
    net: MaskedModellingNet, n_bins: int, latents: NDArray, counts: NDArray
) -> MaskedModellingNet:
    """Copy of a trained net with further neurons, which it must always hide.

    Parameters
    ----------
    net : MaskedModellingNet
        Trained net.
    n_bins : int
        Bins of its windows.
    latents : ndarray of shape (..., width)
        Latents of each bin.
    counts : ndarray of shape (..., n_new)
        Counts of the new neurons, NaN where unknown; each has a known one.
    """
    module = net.module_
    rows, columns = (a.reshape(-1, a.shape[-1]) for a in (latents, counts))
    fitted = fit_readout(module.readout, rows, columns)
    weight, bias = (torch.as_tensor(part).to(module.readout.weight) for part in fitted)
    larger = copy.copy(net)
    larger.module_ = with_more_neurons(module, n_bins, weight, bias)
    larger.module__n_neurons = larger.module_.readout.out_features  # what a file restores
    return larger


@torch.no_grad()
def average_heldout(net: MaskedModellingNet, windows: Windows) -> None:
    """Average the readout of held-out neurons with that of `fit_readout`.

    Trained on few trials, their rows have errors, of which the held-in neurons know nothing. Those
    of a regression with a prior from the held-in neurons are others, so the mean is better.

    Parameters
    ----------
    net : MaskedModellingNet
        Trained and calibrated net; the readout of its held-out neurons is modified, if the
        likelihood is Poisson and other neurons can serve as a prior.
    windows : Windows
        Windows used for training.
    """
    module: STNDT = net.module_
    readout: ReadOut = module.readout
    heldout = torch.as_tensor(net.objective.heldout_neurons, dtype=torch.long)
    heldin = torch.as_tensor(np.setdiff1d(np.arange(readout.out_features), heldout.numpy()))
    if not len(heldout) or len(heldin) < FEWEST_KNOWN or type(module.likelihood) is not Poisson:
        return
    module.eval()
    size = inference_batch_size(module, windows.window, windows.rows.shape[1])
    most = max(MOST_BINS // windows.window, 1)
    chosen = np.linspace(0, len(windows) - 1, min(most, len(windows))).astype(int)
    latents, counts = [], []
    for part in np.array_split(chosen, -(-len(chosen) // size)):
        batch = net.split_visible(windows.__getitems__(part)[0])
        of_heldout = batch.spikes.masked_fill(~batch.known, torch.nan)[..., heldout]
        used = ~of_heldout.isnan().all(2)
        inferred = net.infer(batch.spikes, batch.visible).latents
        assert inferred is not None
        latents.append(inferred[used].cpu())
        counts.append(of_heldout[used].cpu())
    fitted = fit_readout(
        _rows_of(readout, heldin), torch.cat(latents).numpy(), torch.cat(counts).numpy()
    )
    gain, shift = readout.gain[heldout], readout.shift[heldout]
    weight, bias = (torch.as_tensor(part).to(readout.weight) for part in fitted)
    readout.weight[heldout] += 0.5 * (weight / gain[:, None] - readout.weight[heldout])
    readout.bias[heldout] += 0.5 * ((bias - shift) / gain - readout.bias[heldout])


def _rows_of(readout: ReadOut, neurons: Tensor) -> ReadOut:
    """Readout of some of the neurons."""
    part = ReadOut(readout.in_features, len(neurons)).to(readout.weight)
    part.load_state_dict({name: rows[neurons] for name, rows in readout.state_dict().items()})
    return part


def known_weights(readout: ReadOut) -> NDArray:
    """Weights of a trained readout, times its gain, (n_neurons, width)."""
    gain = readout.gain.double().cpu().numpy()
    return readout.weight.detach().double().cpu().numpy() * gain[:, None]


def spread_of(weights: NDArray) -> NDArray:
    """Map from standard normal numbers to deviations of a neuron's weights, (width, width)."""
    covariance = np.zeros((weights.shape[1],) * 2)
    if len(weights) > 1:
        covariance, _ = ledoit_wolf(weights - weights.mean(0), assume_centered=True)
    values, vectors = np.linalg.eigh(PRIOR_SHARE * covariance)
    return vectors * np.sqrt(np.maximum(values, 0))


def fit_readout(readout: ReadOut, latents: NDArray, counts: NDArray) -> tuple[NDArray, NDArray]:
    r"""Fit the rows of a readout for further neurons by Poisson regression with a learned prior.

    The known neurons say how weights are distributed. With their mean :math:`m` and covariance
    :math:`\Sigma`, the row of a new neuron with counts :math:`s_t` maximises

    .. math:: \sum_t (s_t r_t - e^{r_t}) - \tfrac{1}{2} (w - m)^T (c\,\Sigma)^{-1} (w - m)
       - \frac{(b - \bar b)^2}{2 \sigma^2}, \qquad r_t = b + w^T z_t .

    So with few spikes, a new neuron is close to the average of the known ones, and with many it is
    what its own spikes say.

    Parameters
    ----------
    readout : ReadOut
        Trained readout of the known neurons.
    latents : ndarray of shape (n_rows, width)
        Latents of each bin.
    counts : ndarray of shape (n_rows, n_new)
        Counts of the new neurons, NaN where unknown; each has a known one.

    Returns
    -------
    weight : ndarray of shape (n_new, width)
    bias : ndarray of shape (n_new,)
    """
    gain = readout.gain.double().cpu().numpy()
    weights = known_weights(readout)
    biases = readout.bias.detach().double().cpu().numpy() * gain
    biases += readout.shift.double().cpu().numpy()
    mean = np.concatenate([[biases.mean()], weights.mean(0)])  # (1 + width,)
    scale = np.zeros((len(mean), len(mean)))  # rows = mean + scale @ standard normal
    scale[0, 0] = max(biases.std(), LEAST_SPREAD)
    scale[1:, 1:] = spread_of(weights)
    features = np.column_stack([np.ones(len(latents)), latents.astype(np.float64)])
    rows = np.empty((counts.shape[1], len(mean)))
    for row, of_neuron in zip(rows, counts.T, strict=True):
        known = ~np.isnan(of_neuron)
        x, base = features[known] @ scale, features[known] @ mean
        row[:] = mean + scale @ _most_likely(x, base, of_neuron[known].astype(np.float64))
    return rows[:, 1:], rows[:, 0]


def _most_likely(x: NDArray, base: NDArray, counts: NDArray) -> NDArray:
    """Coefficients of x, with a standard normal prior, of log-rates `base + x @ coefficients`."""

    def rates(coefficients: NDArray) -> tuple[NDArray, NDArray]:
        log_rates = np.minimum(base + x @ coefficients, HIGHEST)
        return log_rates, np.exp(log_rates)

    def loss(coefficients: NDArray) -> tuple[float, NDArray]:
        log_rates, expected = rates(coefficients)
        value = expected.sum() - counts @ log_rates + 0.5 * coefficients @ coefficients
        return value, x.T @ (expected - counts) + coefficients

    def curvature(coefficients: NDArray, direction: NDArray) -> NDArray:
        return x.T @ (rates(coefficients)[1] * (x @ direction)) + direction

    start = np.zeros(x.shape[1])
    return minimize(loss, start, jac=True, hessp=curvature, method="Newton-CG").x
