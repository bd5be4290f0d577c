"""Train a network that starts with the core of another: how its ends find their place."""

import copy
import math

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.linear_model import RidgeCV
from skorch.callbacks import Callback
from torch import Tensor

from sklearn_stndt.network import STNDT
from sklearn_stndt.network.core import copy_core, core_parameters
from sklearn_stndt.training.net import MaskedModellingNet
from sklearn_stndt.training.objective import Batch
from sklearn_stndt.training.readout import FEWEST_KNOWN, known_weights, spread_of
from sklearn_stndt.training.settings import DataSize, Settings
from sklearn_stndt.windows.cutting import Windows
from sklearn_stndt.windows.segments import Segments

FROZEN_SHARE = 0.1  # share of the updates during which the core does not change
CORE_RATE = 0.6  # steps of the core, relative to those of training from nothing
N_STARTS = 4  # ends that are tried
N_ROUNDS = 3  # regressions for each of them
N_FURTHER = 2  # regressions for the best of them
FEW_WINDOWS = 24  # windows for the regressions of each
MOST_WINDOWS = 64  # for those of the best
SCALES = np.linspace(0.2, 1.0, 5)
PENALTIES = np.logspace(-4, 3, 15)  # of the embedding, given the readout
FEWEST_SET_ASIDE = 30  # windows; fewer are worth more as training data


class SlowerCore(Callback):
    """Keep the core fixed at first, then take smaller steps for it than for the ends.

    The ends have to find out how neurons map to the core's stream, while the core keeps what it
    knows. Steps are scaled after the optimizer has taken them, so that this works for every
    optimizer.

    Parameters
    ----------
    core_rate : float
        Factor of the steps of the core.
    n_frozen : int or inf, default=0
        Number of updates during which the core is fixed.
    """

    def __init__(self, core_rate: float, n_frozen: float = 0):
        self.core_rate = core_rate
        self.n_frozen = n_frozen

    def on_train_begin(self, net, **kwargs):
        self._core = list(core_parameters(net.module_))
        self.n_updates_ = 0

    def on_batch_begin(self, net, training=False, **kwargs):
        if training:  # each time, because training may go back, or continue from a checkpoint
            self._freeze(self.n_updates_ < self.n_frozen)

    def on_grad_computed(self, net, training=False, **kwargs):
        if training:
            moved = [weight for weight in self._core if weight.grad is not None]
            self._before = [(weight, weight.detach().clone()) for weight in moved]

    @torch.no_grad()
    def on_batch_end(self, net, training=False, **kwargs):
        if training:
            for weight, before in self._before:
                weight.copy_(torch.lerp(before, weight, self.core_rate))
            self.n_updates_ += 1

    def on_train_end(self, net, **kwargs):
        self._freeze(False)
        del self._core
        self.__dict__.pop("_before", None)

    def _freeze(self, frozen: bool) -> None:
        for weight in self._core:
            weight.requires_grad_(not frozen)


def start_callbacks(settings: Settings, size: DataSize) -> list[tuple[str, Callback]]:
    """Callbacks of a net that starts with the core of another."""
    n_frozen = round(FROZEN_SHARE * settings.training.max_epochs * _n_batches(settings, size))
    return [("slower_core", SlowerCore(CORE_RATE, n_frozen))]


def _n_batches(settings: Settings, size: DataSize) -> int:
    """Batches of an epoch."""
    batch_size = settings.training.batch_size
    return -(-size.epoch_windows(batch_size) // batch_size)


@torch.no_grad()
def take_core(net: MaskedModellingNet, core: STNDT, windows: Windows) -> None:
    r"""Give a net the core of another network, and ends that suit it.

    With a fixed core, training of the ends often settles on a map of the neurons that is far from
    the best, and takes long. So it starts from ends that are found without gradients: a population
    with readout weights :math:`W` has embedding weights that follow from them as in the other
    network, by ridge regression of one on the other over its neurons. Starting from a :math:`W` as
    if drawn from these neurons, half-hidden counts give latents, a regression of the counts on the
    latents gives the next :math:`W`, and so on. Several starts are tried with few windows, and the
    one with the smallest loss of hidden entries is improved with more of them.

    Parameters
    ----------
    net : MaskedModellingNet
        Initialised net with the statistics of its neurons, whose weights are replaced.
    core : STNDT
        Network whose core is the start.
    windows : Windows
        Training windows.
    """
    module: STNDT = net.module_
    copy_core(module, core)
    n_known, n_new = core.readout.out_features, module.readout.out_features
    if n_known < FEWEST_KNOWN:
        return
    if module.mix_last is not None:  # what mixing adds to the stream: as of an average neuron
        back, of_core = module.mix_last.from_neurons, core.mix_last.from_neurons
        back.weight.copy_(n_known / n_new * of_core.weight.mean(1, keepdim=True).expand(-1, n_new))
        back.bias.copy_(of_core.bias)
    weights = known_weights(core.readout)
    embedding = RidgeCV(PENALTIES).fit(weights, core.embed.weight.double().cpu().numpy().T)
    mean, spread = weights.mean(0), spread_of(weights)
    module.eval()

    def improve(batch: Batch) -> None:
        shown = batch.visible & ~net.objective.draw_mask(batch.visible)
        latents = module(batch.spikes, shown).latents
        _set_ends(module, embedding, *regress(module, latents, batch, mean, spread))

    bias = module.readout.bias.clone()
    few, many = (_spread_out(net, windows, n) for n in (FEW_WINDOWS, MOST_WINDOWS))
    shown = few.visible & ~net.objective.draw_mask(few.visible)
    smallest = math.inf
    best: dict[str, Tensor] = {}
    for _ in range(N_STARTS):
        draws = torch.randn(n_new, len(mean), dtype=torch.float64).numpy()
        _set_ends(module, embedding, mean + draws @ spread.T, bias)
        for _ in range(N_ROUNDS):
            improve(few)
        nll = module.likelihood.nll(module(few.spikes, shown).log_rates, few.spikes)
        loss = float(nll[few.known & ~shown].mean())
        if not best or loss < smallest:
            smallest, best = loss, copy.deepcopy(module.state_dict())
    module.load_state_dict(best)
    for _ in range(N_FURTHER):
        improve(many)
    module.train()


def _spread_out(net: MaskedModellingNet, windows: Windows, n: int) -> Batch:
    """At most n windows, spread evenly over the data."""
    chosen = np.linspace(0, len(windows) - 1, min(len(windows), n)).astype(int)
    return net.split_visible(windows.__getitems__(chosen)[0])


def _set_ends(module: STNDT, embedding: RidgeCV, weights: NDArray, bias: Tensor) -> None:
    """Set the readout, and the embedding that goes with it."""
    module.readout.weight.copy_(torch.as_tensor(weights))
    module.readout.bias.copy_(bias)
    module.embed.weight.copy_(torch.as_tensor(embedding.predict(weights).T))


def regress(
    module: STNDT, latents: Tensor, batch: Batch, mean: NDArray, spread: NDArray
) -> tuple[NDArray, Tensor]:
    """Weights and bias of a readout of latents, by one step of Fisher scoring from mean rates.

    The step is scaled by the best of `SCALES`, since entries are no linear function of a readout.

    Parameters
    ----------
    module : STNDT
        Network whose likelihood is that of the entries.
    latents : Tensor of shape (batch, n_bins, width)
    batch : Batch
        Entries, and which of them are known.
    mean : ndarray of shape (width,)
        Mean of the weights of a neuron before its entries are seen.
    spread : ndarray of shape (width, width)
        Map from standard normal numbers to their deviations.

    Returns
    -------
    weights : ndarray of shape (n_neurons, width)
    bias : Tensor of shape (n_neurons,)
    """
    likelihood = module.likelihood.of(...).double()
    spikes, known = batch.spikes.cpu().double(), batch.known.cpu()
    at_mean = likelihood.link(likelihood.start_mean)  # (n_neurons,)
    with torch.enable_grad():
        readout = at_mean.expand(spikes.shape).clone().requires_grad_()
        loss = torch.where(known, likelihood.nll(readout, spikes), 0.0).sum()
        score = -torch.autograd.grad(loss, readout)[0]  # (batch, n_bins, n_neurons)
    exists = known.any(2)  # bins that are no padding
    information = likelihood.information(at_mean) * known[exists].double().mean(0)
    latents = latents.cpu().double()  # (batch, n_bins, width)
    center = latents[exists].mean(0)
    latents = latents - center
    rows, score = latents[exists], score[exists]  # (n_rows, ...)
    mean, spread = torch.as_tensor(mean), torch.as_tensor(spread)
    score = score - information * (rows @ mean)[:, None]  # what is left with mean weights
    rows = rows @ spread
    values, vectors = torch.linalg.eigh(rows.T @ rows)
    step = (vectors.T @ rows.T @ score) / (values[:, None] * information + 1)
    weights = mean + (spread @ vectors @ step).T  # (n_neurons, width)
    deviations = latents @ weights.T  # (batch, n_bins, n_neurons)
    smallest, best = math.inf, (torch.zeros_like(weights), at_mean)
    for scale in SCALES:
        scaled = at_mean + scale * deviations
        shift = likelihood.shift(at_mean.expand(spikes.shape), scaled, known)
        nll = likelihood.nll(likelihood.limit(scaled + shift), spikes)
        loss = float(torch.where(known, nll, 0.0).sum())
        if loss < smallest:
            smallest = loss
            best = scale * weights, at_mean + shift - scale * weights @ center
    return best[0].numpy(), best[1]


def enough_to_set_aside(segments: Segments, window: int, validation_fraction: float) -> bool:
    """Whether windows should be set aside for early stopping, or all be used for training."""
    return round(validation_fraction * segments.n_windows(window)) >= FEWEST_SET_ASIDE
