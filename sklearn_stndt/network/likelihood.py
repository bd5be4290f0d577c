"""Distributions of the entries of X given their expected values: loss, link, start, sampling.

A likelihood is one class here and one entry in `LIKELIHOODS`. The network's readout gives one
number per neuron and bin, which the likelihood turns into an expected value. What else determines
the distribution, such as a dispersion, is one number per neuron, learned with the network.
"""

import copy
import math
from collections.abc import Sequence
from typing import Any, NamedTuple, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

MAX_LOG_RATE = 15.0  # e^15 spikes per bin: above any recording, its square finite in float32
MIN_LOG_RATE = -80.0  # e^-80 is above 0 in float32, so every rate has a logarithm
LARGEST_SIGNAL = 1e15  # its square is finite in float32
CONSTANT_SPEED = 5.0  # steps of logarithms of constants, relative to those of weights
DISPERSION_SPEED = 10.0


class Statistics(NamedTuple):
    """Statistics of each neuron's known entries, from which training starts; each (n_neurons,).

    Attributes
    ----------
    mean : array
        Mean; of likelihoods without negative values it is above 0, even for a silent neuron.
    mean_input, std_input : array
        Mean and standard deviation of the entries, or of their square roots if the likelihood
        shows these to the network. The standard deviation of a constant neuron is set to 1.
    variance, share_positive : array, or None
        Variance, and the share of entries above 0. None for Poisson counts, which need neither.
    """

    mean: Any
    mean_input: Any
    std_input: Any
    variance: Any = None
    share_positive: Any = None


class Likelihood(nn.Module):
    r"""Distribution of the entries of X; the base class of likelihoods of your own.

    A subclass implements `link`, `mean`, `nll` and `sample`, and is passed as an object:
    ``STNDTEstimator(likelihood=Laplace())``. If it has numbers per neuron, it creates them in
    `set_up` and gives them starting values in `begin`. Its constructor takes settings alone, and
    tensors that it registers are shared by all neurons. Every fit works on a copy.

    Attributes
    ----------
    counts : bool
        Whether entries are spike counts, which are scored in bits per spike; others are scored in
        bits per entry.
    lowest : float or None
        Smallest legal entry; None: there is none.
    root_input : bool
        Whether the network is shown square roots of the entries.
    steepest : float
        While latents are inferred, derivatives above this readout are taken to be those at it.

    Examples
    --------
    Signals with outliers:

    >>> import torch
    >>> from sklearn_stndt.network.likelihood import Likelihood
    >>> class Laplace(Likelihood):
    ...     def set_up(self, n_neurons):
    ...         self.register_buffer("center", torch.zeros(n_neurons))
    ...         self.register_buffer("scale", torch.ones(n_neurons))
    ...
    ...     def begin(self, statistics):
    ...         self.center.copy_(statistics.mean)
    ...         self.scale.copy_(statistics.std_input)
    ...
    ...     def link(self, mean):
    ...         return (mean - self.center) / self.scale
    ...
    ...     def mean(self, readout):
    ...         return self.center + self.scale * readout
    ...
    ...     def nll(self, readout, values):
    ...         return (self.link(values) - readout).abs()
    ...
    ...     def sample(self, mean, random_state):
    ...         return random_state.laplace(mean, self.scale.cpu().numpy())
    """

    start_mean: Tensor  # of the training data
    counts = False
    lowest: float | None = None
    root_input = False
    steepest = math.inf
    _of_all: frozenset[str] = frozenset()  # tensors of the constructor, not of each neuron

    def set_up(self, n_neurons: int) -> None:
        """Create the parameters and buffers of a population."""

    def begin(self, statistics: Statistics) -> None:
        """Set starting values from statistics of the training data, of tensors."""

    def link(self, mean: Tensor) -> Tensor:
        """Readout whose expected value is `mean`, of shape (..., n_neurons)."""
        raise NotImplementedError

    def limit(self, readout: Tensor) -> Tensor:
        """Clip the readout, (..., n_neurons), so that expected values are finite."""
        return readout

    def mean(self, readout: Tensor) -> Tensor:
        """Expected values, in the shape of the readout, (..., n_neurons)."""
        raise NotImplementedError

    def nll(self, readout: Tensor, values: Tensor) -> Tensor:
        """Negative log-likelihood of each entry, in nats, without terms that nothing changes.

        Parameters
        ----------
        readout : Tensor, shape (..., n_bins, n_neurons)
            From the network.
        values : Tensor, broadcastable to that shape
            Entries of X; 0 where missing.

        Returns
        -------
        Tensor, in the shape of the readout
            Finite.
        """
        raise NotImplementedError

    def sample(self, mean: NDArray, random_state: Any) -> NDArray:
        """Draw entries.

        Parameters
        ----------
        mean : ndarray of shape (..., n_neurons)
            Expected values.
        random_state : numpy.random.RandomState

        Returns
        -------
        ndarray, same shape
        """
        raise NotImplementedError

    def cross_entropy(self, readout: Tensor, mean: Tensor) -> Tensor:
        """Expected `nll` of entries with other expected values, but for terms that are constant.

        That is `nll` at the expected value, if `nll` is linear or quadratic in the entries.
        """
        return self.nll(readout, mean)

    def summary(self, values: Tensor) -> tuple[Tensor, ...]:
        """What `null_nll` has to know of each entry; each in the shape of the values."""
        return (self.nll(self.link(self.start_mean).expand(values.shape), values).detach(),)

    def null_nll(self, *sums: Tensor) -> Tensor:
        """Negative log-likelihood of entries at each neuron's mean; omits the same terms as `nll`.

        Parameters
        ----------
        *sums : Tensor, shape (n_neurons,)
            Sums of `summary` over the scored entries, and, last, the number of these.

        Returns
        -------
        Tensor, shape (n_neurons,)
        """
        return sums[0]

    def shift(self, before: Tensor, after: Tensor, known: Tensor) -> Tensor:
        """Shift of the readout, (n_neurons,), that gives each neuron its earlier mean.

        Parameters
        ----------
        before, after : Tensor, shape (batch, n_bins, n_neurons)
            Readout, and the readout scaled around its mean.
        known : Tensor of bool, same shape
            Entries over which the mean is taken.
        """
        return torch.zeros(before.shape[-1], dtype=before.dtype)

    def information(self, readout: Tensor) -> Tensor:
        """Fisher information of each entry about its readout."""
        return torch.ones_like(readout)

    def gradient(self, readout: Tensor, values: Tensor) -> Tensor:
        """Derivative of each entry's log-likelihood (minus `nll`) with respect to its readout.

        A likelihood of your own may do without. With `gradient` and `information`, rates of its
        networks are improved by a `LatentPosterior`.

        Parameters
        ----------
        readout, values : Tensor
            As in `nll`.

        Returns
        -------
        Tensor, in the shape of the readout
        """
        raise NotImplementedError

    @property
    def has_derivatives(self) -> bool:
        """Whether `gradient` and `information` are those of `nll`.

        They are not if a subclass has another `nll` alone.
        """

        def owner(name: str) -> type:
            return next(kind for kind in type(self).__mro__ if name in vars(kind))

        of_nll = owner("nll")
        return all(issubclass(owner(name), of_nll) for name in ("gradient", "information"))

    def constants(self) -> dict[str, Tensor]:
        """Numbers of each neuron, (n_neurons,), that determine the distribution with its mean."""
        return {}

    @property
    def unit(self) -> str:
        """Unit of scores."""
        return "bits per spike" if self.counts else "bits per entry"

    def amount(self, total: Tensor, n_entries: Tensor) -> Tensor:
        """What scores are divided by: of counts the spikes, else the entries."""
        return total if self.counts else n_entries

    def fresh(self, n_neurons: int) -> Self:
        """Copy for a population of neurons."""
        copied = copy.deepcopy(self)
        copied._of_all = frozenset(copied._numbers())
        copied.register_buffer("start_mean", torch.zeros(n_neurons), persistent=False)
        copied.set_up(n_neurons)
        return copied

    def _numbers(self) -> dict[str, Tensor]:
        """Parameters and buffers by their names."""
        return dict([*self.named_parameters(), *self.named_buffers()])

    def content(self) -> tuple[type, dict[str, Any], dict[str, NDArray]]:
        """Class, settings and numbers, by which two likelihoods are the same or not."""
        of_modules = vars(nn.Module())
        settings = {name: value for name, value in vars(self).items() if name not in of_modules}
        numbers = {name: value.detach().cpu().numpy() for name, value in self._numbers().items()}
        return type(self), settings, numbers

    def of(self, neurons: Any) -> Self:
        """Copy on the CPU for some of the neurons: indices, a mask, or ... for all."""
        copied = copy.deepcopy(self).cpu().requires_grad_(False)
        for name, values in copied._numbers().items():
            if values.ndim and name not in self._of_all:
                values.data = values.data[neurons]
        return copied


class Constant(nn.Module):
    """A positive number of each neuron, learned, within bounds.

    It is learned as the logarithm of its ratio to the starting value, to which weight decay draws.

    Parameters
    ----------
    n_neurons : int
    low, high : float
        Bounds.
    speed : float, default=CONSTANT_SPEED
        Steps of the logarithm, relative to those of weights.
    """

    start: Tensor

    def __init__(self, n_neurons: int, low: float, high: float, speed: float = CONSTANT_SPEED):
        super().__init__()
        self.speed = speed
        self.change = nn.Parameter(torch.zeros(n_neurons))
        self.register_buffer("start", torch.zeros(n_neurons))
        self.bounds = math.log(low), math.log(high)

    @torch.no_grad()
    def begin(self, value: Tensor) -> None:
        """Set the starting value."""
        self.start.copy_(value.log().clamp(*self.bounds))

    @torch.no_grad()
    def settle(self) -> None:
        """Take the present value as the starting value."""
        self.start.copy_(self.log())
        self.change.zero_()

    def log(self) -> Tensor:
        """Natural logarithm."""
        return (self.start + self.speed * self.change).clamp(*self.bounds)

    def forward(self) -> Tensor:
        return self.log().exp()


class LogLink(Likelihood):
    """Likelihoods of entries of at least 0, whose readout is the logarithm of the mean."""

    lowest = 0.0
    root_input = True
    steepest = 10.0

    def link(self, mean: Tensor) -> Tensor:
        return mean.log()

    def limit(self, readout: Tensor) -> Tensor:
        return readout.clamp(max=MAX_LOG_RATE)

    def mean(self, readout: Tensor) -> Tensor:
        return readout.clamp(min=MIN_LOG_RATE).exp()

    def shift(self, before: Tensor, after: Tensor, known: Tensor) -> Tensor:
        of_before = torch.where(known, before, -torch.inf).flatten(0, 1).logsumexp(0)
        of_after = torch.where(known, after, -torch.inf).flatten(0, 1).logsumexp(0)  # (n_neurons,)
        return torch.where(known.any(0).any(0), of_before - of_after, 0.0)


class Counts(LogLink):
    """Likelihoods of spike counts, whose null model is Poisson counts at each neuron's mean."""

    counts = True

    def summary(self, values: Tensor) -> tuple[Tensor, ...]:
        return (values,)

    def null_nll(self, *sums: Tensor) -> Tensor:
        n_spikes, n_entries = sums
        return n_spikes - torch.xlogy(n_spikes, n_spikes / n_entries.clamp(min=1))


class Poisson(Counts):
    r"""Poisson counts; the readout is the logarithm of the rate.

    The loss is :math:`e^{r} - s\,r` for a log-rate r and a count s.
    """

    def nll(self, readout: Tensor, values: Tensor) -> Tensor:
        return torch.exp(readout) - values * readout

    def information(self, readout: Tensor) -> Tensor:
        return readout.exp()

    def gradient(self, readout: Tensor, values: Tensor) -> Tensor:
        return values - readout.exp()

    def sample(self, mean: NDArray, random_state: Any) -> NDArray:
        return random_state.poisson(mean)


class NegativeBinomial(Counts):
    r"""Counts that vary more than Poisson counts; the readout is the logarithm of the rate.

    The variance of a count is :math:`\mu + \alpha \mu^2` for a rate :math:`\mu` and a dispersion
    :math:`\alpha` of the neuron, which is learned. The loss of a count s is

    .. math:: (s + 1 / \alpha) \log(1 + \alpha e^r) - s\,r - \sum_{j < s} \log(1 + \alpha j),

    which is that of Poisson counts where :math:`\alpha` is small.
    """

    def set_up(self, n_neurons: int) -> None:
        # fast, because it begins too high: rates vary too
        self.dispersion = Constant(n_neurons, 1e-4, 1e2, DISPERSION_SPEED)

    def begin(self, statistics: Statistics) -> None:
        mean, variance = statistics.mean, statistics.variance
        # not at the lower bound, where the loss is flat
        self.dispersion.begin(((variance - mean) / mean.square()).clamp(min=1e-2))

    def nll(self, readout: Tensor, values: Tensor) -> Tensor:
        dispersion = self.dispersion()
        excess = torch.log1p(dispersion * torch.exp(readout))
        return (values + 1 / dispersion) * excess - values * readout - self._rising(values)

    def _rising(self, values: Tensor) -> Tensor:
        """Sum of log(1 + dispersion j) over j from 0 to the count, extended to fractions.

        It is 0 at counts of 0 and 1, which are most of them, and left out there.
        """
        many = (values != 0) & (values != 1)
        neurons = self.dispersion.log().double().expand(values.shape)[many]
        chosen, inverse = values[many].double(), torch.exp(-neurons)
        # differences of large numbers
        terms = torch.lgamma(chosen + inverse) - torch.lgamma(inverse) + chosen * neurons
        rising = torch.zeros(values.shape, dtype=values.dtype, device=values.device)
        return rising.masked_scatter(many, terms.to(values.dtype))

    def information(self, readout: Tensor) -> Tensor:
        rate = readout.exp()
        return rate / (1 + self.dispersion() * rate)

    def gradient(self, readout: Tensor, values: Tensor) -> Tensor:
        rate = readout.exp()
        return (values - rate) / (1 + self.dispersion() * rate)

    def constants(self) -> dict[str, Tensor]:
        return {"dispersion": self.dispersion()}

    def sample(self, mean: NDArray, random_state: Any) -> NDArray:
        dispersion = self.dispersion().detach().cpu().double().numpy()
        return random_state.poisson(random_state.gamma(1 / dispersion, dispersion * mean))


class Gaussian(Likelihood):
    r"""Signals of any sign; the readout is the mean, in standard deviations of the neuron.

    The loss of a standardised entry z is :math:`(z - r)^2 / 2 \sigma^2 + \log \sigma` with a noise
    :math:`\sigma` of the neuron, which is learned.
    """

    center: Tensor
    scale: Tensor

    def set_up(self, n_neurons: int) -> None:
        self.register_buffer("center", torch.zeros(n_neurons))
        self.register_buffer("scale", torch.ones(n_neurons))
        self.noise = Constant(n_neurons, 1e-2, 1e1)  # relative to the scale

    def begin(self, statistics: Statistics) -> None:
        self.center.copy_(statistics.mean)
        self.scale.copy_(statistics.std_input)
        self.noise.begin(torch.ones_like(self.scale))

    def link(self, mean: Tensor) -> Tensor:
        return (mean - self.center) / self.scale

    def mean(self, readout: Tensor) -> Tensor:
        return self.center + self.scale * readout

    def limit(self, readout: Tensor) -> Tensor:
        return readout.clamp(-1e4, 1e4)

    def nll(self, readout: Tensor, values: Tensor) -> Tensor:
        log = self.noise.log()
        return 0.5 * ((self.link(values) - readout) * torch.exp(-log)).square() + log

    def summary(self, values: Tensor) -> tuple[Tensor, ...]:
        standardized = self.link(values)
        return standardized, standardized.square()

    def null_nll(self, *sums: Tensor) -> Tensor:
        total, squares, n_entries = sums
        number = n_entries.clamp(min=1)
        variance = squares / number - (total / number).square()
        return 0.5 * n_entries * (1 + variance.clamp(min=1e-4).log())

    def information(self, readout: Tensor) -> Tensor:
        return torch.exp(-2 * self.noise.log()).expand(readout.shape)

    def gradient(self, readout: Tensor, values: Tensor) -> Tensor:
        return (self.link(values) - readout) * torch.exp(-2 * self.noise.log())

    def constants(self) -> dict[str, Tensor]:
        return {"noise": self.scale * self.noise()}

    def sample(self, mean: NDArray, random_state: Any) -> NDArray:
        return random_state.normal(mean, self.constants()["noise"].detach().cpu().double().numpy())


class ZeroInflatedGamma(LogLink):
    r"""Entries that are 0 or positive, such as deconvolved calcium; the readout is the log-mean.

    An entry with the expected value :math:`\mu` is positive with the probability

    .. math:: p = 1 - \exp(-\lambda \mu^b),

    and then has a gamma distribution with the mean :math:`\mu / p` and the shape k. The event rate
    :math:`\lambda`, the exponent b and the shape of each neuron are learned. With b = 1, expected
    values differ by the number of events; with b = 0, by their size.
    """

    size: Tensor

    def set_up(self, n_neurons: int) -> None:
        self.register_buffer("size", torch.ones(n_neurons))  # unit of expected values
        self.events = Constant(n_neurons, 1e-6, 1e2)  # event rate at that expected value
        self.exponent = Constant(n_neurons, 1e-2, 2.0)
        self.shape = Constant(n_neurons, 0.1, 1e3)

    def begin(self, statistics: Statistics) -> None:
        mean, variance = statistics.mean, statistics.variance
        share = statistics.share_positive.clamp(1e-4, 1 - 1e-4)
        self.size.copy_(mean)
        self.events.begin(-torch.log1p(-share))
        self.exponent.begin(torch.ones_like(mean))
        # shape from mean and variance of positive entries
        squared = (mean / share).square()
        of_positive = (variance + mean.square()) / share - squared
        self.shape.begin(squared / of_positive.clamp(min=1e-2 * squared))

    def link(self, mean: Tensor) -> Tensor:
        return (mean / self.size).log()

    def limit(self, readout: Tensor) -> Tensor:
        return readout.clamp(-MAX_LOG_RATE, MAX_LOG_RATE)

    def mean(self, readout: Tensor) -> Tensor:
        return self.size * readout.exp()

    def _positive(self, readout: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Event rate, log-probability of a positive entry, and logarithm of its mean."""
        rate = torch.exp(self.events.log() + self.exponent() * readout)
        log_share = torch.log(-torch.expm1(-rate))
        return rate, log_share, readout - log_share

    def _gamma(self, log: Tensor, size: Tensor, log_mean: Tensor) -> Tensor:
        """Negative log-density of sizes, of which the logarithms may be expected ones."""
        shape = self.shape()
        scaled = log_mean - shape.log()
        of_shape = torch.lgamma(shape) + shape * scaled
        return of_shape - (shape - 1) * log + size * torch.exp(-scaled)

    def nll(self, readout: Tensor, values: Tensor) -> Tensor:
        rate, log_share, log_mean = self._positive(readout)
        size = torch.where(values > 0, values / self.size, 1.0)
        of_positive = self._gamma(size.log(), size, log_mean) - log_share
        return torch.where(values > 0, of_positive, rate)

    def cross_entropy(self, readout: Tensor, mean: Tensor) -> Tensor:
        _, log_true, log_size = self._positive(self.link(mean.clamp(min=1e-6 * self.size)))
        shape, true = self.shape(), log_true.exp()
        rate, log_share, log_mean = self._positive(readout)
        log = torch.digamma(shape) - shape.log() + log_size
        return (1 - true) * rate + true * (self._gamma(log, log_size.exp(), log_mean) - log_share)

    def summary(self, values: Tensor) -> tuple[Tensor, ...]:
        positive = values > 0
        size = torch.where(positive, values / self.size, 1.0)
        return values / self.size, positive.to(values.dtype), size.log()

    def null_nll(self, *sums: Tensor) -> Tensor:
        total, n_positive, logs, n_entries = sums
        number = n_positive.clamp(min=1)
        mean = (total / number).clamp(min=1e-30)
        # approximate maximum likelihood of the shape (Minka 2002)
        excess = (mean.log() - logs / number).clamp(min=1e-3)
        shape = (3 - excess + ((excess - 3).square() + 24 * excess).sqrt()) / (12 * excess)
        of_sizes = torch.lgamma(shape) + shape * (mean / shape).log() + shape
        share = n_positive / n_entries.clamp(min=1)
        of_zeros = torch.xlogy(n_positive, share) + torch.xlogy(n_entries - n_positive, 1 - share)
        return n_positive * of_sizes - (shape - 1) * logs - of_zeros

    def information(self, readout: Tensor) -> Tensor:
        rate, log_share, _ = self._positive(readout)
        exponent, share = self.exponent(), log_share.exp()
        of_share = exponent * rate / torch.expm1(rate).clamp(max=1e30)  # its slope
        return exponent * rate * of_share + share * self.shape() * (1 - of_share).square()

    def constants(self) -> dict[str, Tensor]:
        exponent = self.exponent().double()
        return {
            "shape": self.shape(),
            "event_rate": self.events().double() * self.size.double() ** -exponent,
            "exponent": exponent,
        }

    def sample(self, mean: NDArray, random_state: Any) -> NDArray:
        with torch.no_grad():
            readout = self.link(torch.as_tensor(mean).to(self.size)).clamp(min=-MAX_LOG_RATE)
            _, log_share, log_mean = self._positive(readout)
            share = log_share.exp().cpu().numpy()
            scale = (self.size * log_mean.exp() / self.shape()).cpu().double().numpy()
            shape = self.shape().cpu().double().numpy()
        positive = random_state.random_sample(mean.shape) < share
        return np.where(positive, random_state.gamma(shape, scale), 0.0)


LIKELIHOODS: dict[str, type[Likelihood]] = {
    "poisson": Poisson,
    "negative_binomial": NegativeBinomial,
    "gaussian": Gaussian,
    "zero_inflated_gamma": ZeroInflatedGamma,
}
NEEDED = ("link", "mean", "nll", "sample")  # methods without which there is no likelihood


def as_likelihood(likelihood: str | Likelihood) -> Likelihood:
    """Likelihood of a name, or the object itself."""
    return LIKELIHOODS[likelihood]() if isinstance(likelihood, str) else likelihood


def known_likelihoods(values: Sequence[Any]) -> list[Likelihood]:
    """Likelihoods among values of parameters of that name, which other packages may have too."""
    return [
        as_likelihood(value)
        for value in values
        if isinstance(value, Likelihood) or (isinstance(value, str) and value in LIKELIHOODS)
    ]


def check_likelihood(likelihood: str | Likelihood) -> None:
    """Refuse an object that lacks methods, or whose methods return other shapes.

    Raises
    ------
    TypeError
        If a method is missing.
    ValueError
        If a method returns another shape than that of its arguments.
    """
    if isinstance(likelihood, str):
        return
    kind = type(likelihood)
    missing = [name for name in NEEDED if getattr(kind, name) is getattr(Likelihood, name)]
    if missing:
        raise TypeError(
            f"likelihood={kind.__name__}(...) lacks {', '.join(missing)}. A likelihood of your own "
            f"implements {', '.join(NEEDED)}, as described in "
            "sklearn_stndt.network.likelihood.Likelihood."
        )
    ones = torch.ones(3)
    made = likelihood.fresh(3)
    with torch.no_grad():
        made.begin(Statistics(ones, ones, ones, ones, ones))
        readout = made.link(ones)
        found = {
            "link": (readout, ones.shape),
            "mean": (made.mean(readout), ones.shape),
            "nll": (made.nll(readout.expand(2, 4, 3), torch.ones(4, 3)), (2, 4, 3)),
        }
    for name, (value, shape) in found.items():
        if tuple(value.shape) != tuple(shape):
            raise ValueError(
                f"{name} of likelihood={kind.__name__}(...) returned shape {tuple(value.shape)} "
                f"for three neurons where {tuple(shape)} was expected: one number per entry."
            )


@torch.no_grad()
def average(likelihoods: Sequence[Likelihood], weights: Sequence[float]) -> Likelihood:
    """Likelihood, on the CPU, with the weighted mean of each number of several fitted ones.

    Constants are averaged as logarithms.
    """
    mean = likelihoods[0].of(...)
    states = [likelihood.of(...).state_dict() for likelihood in likelihoods]
    total = float(sum(weights))
    for name, values in mean.state_dict().items():
        parts = [w / total * state[name] for w, state in zip(weights, states, strict=True)]
        values.copy_(torch.stack(parts).sum(0))
    return mean
