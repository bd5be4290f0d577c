"""Established synthetic benchmarks: a chaotic recurrent network and a Lorenz system."""

import numpy as np
from sklearn.utils import check_random_state

from sklearn_stndt.datasets._checks import check_count, check_memory, check_number, check_rates
from sklearn_stndt.datasets._loaded import Loaded

_LORENZ_STEP = 0.006  # longest Euler step, in units of Lorenz time
_LORENZ_BURN_IN = 500  # steps from the random initial state onto the attractor


def make_chaotic_rnn(
    n_conditions=130,
    n_repetitions=10,
    n_neurons=50,
    n_bins=100,
    *,
    bin_width=0.01,
    gain=1.5,
    tau=0.025,
    x0_std=1.0,
    max_rate=30.0,
    train_fraction=0.8,
    random_state=5,
):
    r"""Poisson spikes of a chaotic recurrent network, a benchmark of LFADS and NDT.

    A random network without input [1]_ starts from one random initial state per condition. All
    repetitions of a condition have the same rates but different spikes. The defaults reproduce
    the data set on which NDT [2]_ was evaluated: 1,040 training and 260 validation trials.

    Parameters
    ----------
    n_conditions : int, default=130
        Number of initial states.
    n_repetitions : int, default=10
        Number of trials per condition.
    n_neurons : int, default=50
        Number of units in the network. All are observed.
    n_bins : int, default=100
        Number of bins per trial, at least 2.
    bin_width : float, default=0.01
        Width of a bin and integration step, in seconds; at most `tau`.
    gain : float, default=1.5
        Scale of the recurrent weights. Large networks are chaotic above 1.
    tau : float, default=0.025
        Time constant of a unit, in seconds.
    x0_std : float, default=1.0
        Standard deviation of the initial states.
    max_rate : float, default=30.0
        Highest rate of each neuron in each trial, in Hz; the lowest is 0.
    train_fraction : float, default=0.8
        Fraction of the repetitions of each condition that are training trials. The first
        repetitions are used, at least one.
    random_state : int, RandomState instance or None, default=5
        Seed of the network, the initial states and the spikes. The default is that of the
        published data set.

    Returns
    -------
    data : :class:`~sklearn.utils.Bunch`
        Dictionary-like object with these attributes:

        spikes : ndarray of shape (n_trials, n_bins, n_neurons), int
            Spike counts per bin, ``n_trials = n_conditions * n_repetitions``.
        rates : ndarray of shape (n_trials, n_bins, n_neurons)
            Expected spikes per bin.
        conditions : ndarray of shape (n_trials,), int
            Condition of each trial; repetitions of a condition are consecutive.
        train : ndarray of shape (n_trials,), bool
            True for training trials, False for validation trials.
        weights : ndarray of shape (n_neurons, n_neurons)
            Recurrent weights before scaling by `gain`; row i holds the input weights of neuron i.
        bin_width : float
            Width of a bin, in seconds.
        DESCR : str
            Description of the data set.

    Raises
    ------
    TypeError
        If an argument is not an integer or a number, as required.
    ValueError
        If an argument is out of range.

    See Also
    --------
    make_lorenz : A chaotic system with three latent dimensions.
    make_reaches : Motor cortex during reaches, with hand velocity.

    Notes
    -----
    With :math:`W_{ij} \sim N(0, 1/N)` and the bin width :math:`\Delta`,

    .. math:: x_t = (1 - \Delta/\tau)\, x_{t-1} + (\Delta/\tau)\, g\, W \tanh(x_{t-1}).

    The rates are :math:`\tanh(x_t)`, scaled to [0, 1] in each trial and neuron, times
    `max_rate`. With the default seed ``weights[0, 0]`` is 0.06239899.

    References
    ----------
    .. [1] Sussillo, D., Jozefowicz, R., Abbott, L. F. & Pandarinath, C. (2016). LFADS - Latent
       Factor Analysis via Dynamical Systems. arXiv:1608.06315.
    .. [2] Ye, J. & Pandarinath, C. (2021). Representation learning for neural population
       activity with Neural Data Transformers. Neurons, Behavior, Data analysis, and Theory.

    Examples
    --------
    >>> from sklearn_stndt.datasets import make_chaotic_rnn
    >>> data = make_chaotic_rnn(n_conditions=4)
    >>> data.spikes.shape
    (40, 100, 50)
    >>> int(data.train.sum())
    32
    >>> float(data.weights[0, 0].round(8))
    0.06239899
    """
    _check_design(n_conditions, n_repetitions, n_neurons, n_bins, train_fraction)
    check_number(tau, "tau", above=0)
    check_number(bin_width, "bin_width", above=0, at_most=tau)
    check_number(gain, "gain", at_least=0)
    check_number(x0_std, "x0_std", above=0)
    check_number(max_rate, "max_rate", above=0)
    rng = check_random_state(random_state)

    weights = rng.standard_normal((n_neurons, n_neurons)) / np.sqrt(n_neurons)
    # The published generator draws weights and times of inputs here, which the network then does
    # not get. Drawing as many numbers reproduces the published states and spikes.
    rng.standard_normal(2 * n_neurons)
    state = x0_std * rng.standard_normal((n_conditions, n_neurons))
    rng.randint(n_bins // 2, size=n_conditions * n_repetitions)

    step = bin_width / tau
    activity = np.empty((n_conditions, n_bins, n_neurons))
    for t in range(n_bins):
        state = (1 - step) * state + step * gain * np.tanh(state) @ weights.T
        activity[:, t] = np.tanh(state)

    lowest = activity.min(axis=1, keepdims=True)
    spread = np.ptp(activity, axis=1, keepdims=True)
    rates = (activity - lowest) / spread * max_rate * bin_width
    data = _repeat_conditions(rates, n_repetitions, train_fraction, rng)
    return Loaded(
        **data,
        weights=weights,
        bin_width=bin_width,
        DESCR=(
            f"Chaotic recurrent network of {n_neurons} units (gain {gain:g}, time constant "
            f"{1000 * tau:g} ms), Poisson spikes: {n_conditions} initial states x "
            f"{n_repetitions} repetitions, {n_bins} bins of {1000 * bin_width:g} ms, rates from "
            f"0 to {max_rate:g} Hz in each trial."
        ),
    )


def make_lorenz(
    n_conditions=65,
    n_repetitions=20,
    n_neurons=30,
    n_bins=50,
    *,
    bin_width=0.02,
    base_rate=5.0,
    speed=6.0,
    train_fraction=0.8,
    random_state=None,
):
    r"""Poisson spikes driven by a Lorenz system, a benchmark of LFADS and NDT.

    Three chaotic latent variables drive all neurons through a random log-linear readout. Each
    condition has one initial state. All repetitions of a condition have the same rates but
    different spikes. The defaults follow the LFADS paper [1]_: 1,040 training and 260 validation
    trials of one second.

    Parameters
    ----------
    n_conditions : int, default=65
        Number of initial states.
    n_repetitions : int, default=20
        Number of trials per condition.
    n_neurons : int, default=30
        Number of neurons.
    n_bins : int, default=50
        Number of bins per trial, at least 2.
    bin_width : float, default=0.02
        Width of a bin, in seconds.
    base_rate : float, default=5.0
        Rate of every neuron if the latent state is at its mean, in Hz. The mean rate is
        higher, because the exponential is convex.
    speed : float, default=6.0
        Speed of the system, in units of Lorenz time per second.
    train_fraction : float, default=0.8
        Fraction of the repetitions of each condition that are training trials. The first
        repetitions are used, at least one.
    random_state : int, RandomState instance or None, default=None
        Seed of the readout, the initial states and the spikes.

    Returns
    -------
    data : :class:`~sklearn.utils.Bunch`
        Dictionary-like object with these attributes:

        spikes : ndarray of shape (n_trials, n_bins, n_neurons), int
            Spike counts per bin, ``n_trials = n_conditions * n_repetitions``.
        rates : ndarray of shape (n_trials, n_bins, n_neurons)
            Expected spikes per bin.
        latents : ndarray of shape (n_trials, n_bins, 3)
            Lorenz variables, averaged within each bin. In each trial, each variable has mean 0
            and, before averaging, a maximum absolute value of 1.
        conditions : ndarray of shape (n_trials,), int
            Condition of each trial; repetitions of a condition are consecutive.
        train : ndarray of shape (n_trials,), bool
            True for training trials, False for validation trials.
        weights : ndarray of shape (n_neurons, 3)
            Readout weights of the log-rates, with absolute values from 1 to 2 and random signs.
        bin_width : float
            Width of a bin, in seconds.
        DESCR : str
            Description of the data set.

    Raises
    ------
    TypeError
        If an argument is not an integer or a number, as required.
    ValueError
        If an argument is out of range.

    See Also
    --------
    make_chaotic_rnn : A chaotic network, with as many latent dimensions as neurons.
    make_reaches : Motor cortex during reaches, with hand velocity.

    Notes
    -----
    The Lorenz system,

    .. math::

        \dot{y}_1 = 10\, (y_2 - y_1), \quad \dot{y}_2 = y_1 (28 - y_3) - y_2, \quad
        \dot{y}_3 = y_1 y_2 - \tfrac{8}{3} y_3,

    is integrated by Euler's method in steps of 0.006 (one millisecond with the defaults) from a
    random state near (0, 0, 25), after a burn-in of 500 steps. The rates are
    ``base_rate * exp(weights @ y)``, where each variable has been centred in each trial and
    divided by its maximum absolute value. The paper does not report how it scaled the variables,
    and published scores are of another random draw. So compare the ranking of methods with
    published scores, not the values.

    References
    ----------
    .. [1] Sussillo, D., Jozefowicz, R., Abbott, L. F. & Pandarinath, C. (2016). LFADS - Latent
       Factor Analysis via Dynamical Systems. arXiv:1608.06315.

    Examples
    --------
    >>> from sklearn_stndt.datasets import make_lorenz
    >>> data = make_lorenz(n_conditions=6, n_repetitions=5, random_state=0)
    >>> data.spikes.shape, data.latents.shape
    ((30, 50, 30), (30, 50, 3))
    >>> int(data.train.sum())
    24
    """
    _check_design(n_conditions, n_repetitions, n_neurons, n_bins, train_fraction)
    check_number(bin_width, "bin_width", above=0)
    check_number(base_rate, "base_rate", above=0)
    check_number(speed, "speed", above=0)
    rng = check_random_state(random_state)

    signs = rng.choice([-1.0, 1.0], size=(n_neurons, 3))
    weights = signs * rng.uniform(1, 2, size=(n_neurons, 3))
    state = rng.normal([0, 0, 25], size=(n_conditions, 3))

    # Slightly less than the quotient, so that rounding does not turn 0.12 / 0.006 into 21 steps.
    steps_per_bin = max(1, int(np.ceil(speed * bin_width / _LORENZ_STEP - 1e-6)))
    check_memory(
        24.0 * n_conditions * n_bins * steps_per_bin,
        f"Integration in {steps_per_bin:,} steps per bin",
        "Lower bin_width or speed.",
    )
    path = _integrate_lorenz(state, n_bins * steps_per_bin, speed * bin_width / steps_per_bin)
    path -= path.mean(axis=1, keepdims=True)
    path /= np.abs(path).max(axis=1, keepdims=True)

    binned = (n_conditions, n_bins, steps_per_bin, -1)
    rates = base_rate * bin_width * np.exp(path @ weights.T).reshape(binned).mean(axis=2)
    data = _repeat_conditions(rates, n_repetitions, train_fraction, rng)
    return Loaded(
        **data,
        latents=np.repeat(path.reshape(binned).mean(axis=2), n_repetitions, axis=0),
        weights=weights,
        bin_width=bin_width,
        DESCR=(
            f"Lorenz system read out by {n_neurons} Poisson neurons (base rate {base_rate:g} "
            f"Hz): {n_conditions} initial states x {n_repetitions} repetitions, {n_bins} bins "
            f"of {1000 * bin_width:g} ms."
        ),
    )


def _integrate_lorenz(state, n_steps, step):
    """Integrate by Euler's method after a burn-in, (n_conditions, n_steps, 3)."""
    path = np.empty((len(state), n_steps, 3))
    for t in range(-_LORENZ_BURN_IN, n_steps):
        if t >= 0:
            path[:, t] = state
        x, y, z = state.T
        change = np.column_stack([10 * (y - x), x * (28 - z) - y, x * y - 8 / 3 * z])
        state = state + step * change
    return path


def _check_design(n_conditions, n_repetitions, n_neurons, n_bins, train_fraction):
    check_count(n_conditions, "n_conditions")
    check_count(n_repetitions, "n_repetitions")
    check_count(n_neurons, "n_neurons")
    check_count(n_bins, "n_bins", minimum=2)
    check_number(train_fraction, "train_fraction", above=0, at_most=1)
    n_trials = int(n_conditions) * int(n_repetitions)
    check_memory(
        16 * n_trials * int(n_bins) * int(n_neurons) + 8 * int(n_neurons) ** 2,
        f"Spikes and rates of {n_trials:,} trials, {n_bins:,} bins and {n_neurons:,} neurons",
        "Lower one of these.",
    )


def _repeat_conditions(rates, n_repetitions, train_fraction, rng):
    """Repeat the rates of each condition and draw spikes; the first repetitions are training."""
    n_conditions = len(rates)
    check_rates(rates, "bin_width, base_rate, max_rate, gain and x0_std")
    rates = np.repeat(rates, n_repetitions, axis=0)  # (trials, bins, neurons)
    # Drawn in the order of the published generator: trials, neurons, bins.
    spikes = rng.poisson(rates.transpose(0, 2, 1)).transpose(0, 2, 1)
    n_train = max(1, int(train_fraction * n_repetitions + 1e-9))
    return {
        "spikes": np.ascontiguousarray(spikes),
        "rates": rates,
        "conditions": np.repeat(np.arange(n_conditions), n_repetitions),
        "train": np.tile(np.arange(n_repetitions) < n_train, n_conditions),
    }
