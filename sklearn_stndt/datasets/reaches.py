"""Synthetic motor cortex during centre-out reaches."""

import numpy as np
from scipy.ndimage import gaussian_filter1d
from scipy.special import expit
from scipy.stats import norm
from sklearn.utils import Bunch, check_random_state

from sklearn_stndt.datasets._checks import check_count, check_memory, check_number, check_rates
from sklearn_stndt.datasets._loaded import Loaded

# Every neuron mixes all latent variables. A share is the mean fraction of the variance of a
# neuron's log-rate that is due to a variable.
_SHARES = {
    "plan_x": 0.07,
    "plan_y": 0.07,
    "rotation1_a": 0.08,
    "rotation1_b": 0.08,
    "rotation2_a": 0.08,
    "rotation2_b": 0.08,
    "command_x": 0.14,
    "command_y": 0.14,
    "feedback_x": 0.08,
    "feedback_y": 0.08,
    "speed": 0.10,
}
_RATE_STD = 1.1  # standard deviation over neurons of the log of mean rates
_DEPTH = 0.6  # standard deviation of the log-rate over time, median over neurons
_DEPTH_STD = 0.25  # standard deviation over neurons of the log of depths
_PEAK_RATE = 200.0  # Hz, at which rates saturate

# Rotations at one to three hertz that start shortly before the hand moves and then decay.
_FREQUENCIES = np.array([1.2, 2.2])  # Hz, one per plane
_RISE = 0.18  # s from the start of the rotations to their peak
_HEAD_START = 0.05  # s by which the rotations precede the command
_PLAN_LENGTH = 0.3  # s for which the plan is held before the command

# Variability of single trials. Standard deviations, unless stated otherwise.
_ONSET = 0.35  # mean onset of the movement, as a fraction of the trial
_ONSET_STD = 0.06  # s
_DIRECTION_STD = np.deg2rad(10)
_DISTANCE_STD = 0.12  # of the log distance
_DURATION_STD = 0.15  # of the log duration
_WOBBLE_STD = 0.2  # of corrections during the movement, as a fraction of the peak speed
_STATE_STD = 0.25  # of the initial state of the rotations
_PRIVATE_WIDTH = 0.15  # s, of the Gaussian that smooths private noise

_PEAK_TO_MEAN = 1.875  # ratio of peak and mean speed of a minimum-jerk movement


def make_reaches(
    n_trials=200,
    n_bins=50,
    n_neurons=60,
    *,
    n_conditions=8,
    bin_width=0.02,
    mean_rate=10.0,
    modulation=1.0,
    variability=1.0,
    private_noise=0.0,
    lag=0.1,
    distance=10.0,
    duration=0.4,
    random_state=None,
):
    r"""Synthetic spikes of motor cortex and hand velocity during centre-out reaches.

    The hand reaches from a centre to targets on a circle. A latent state of 11 dimensions
    contains a motor plan, rotational dynamics, motor commands and sensory feedback. As in motor
    and premotor cortex [1]_, each neuron mixes all of these, and mean rates differ widely
    between neurons. Spikes are Poisson. Reaches to the same target vary from trial to trial, in
    neural activity and in the hand, so trial averages explain only part of either.

    Parameters
    ----------
    n_trials : int, default=200
        Number of trials.
    n_bins : int, default=50
        Number of bins per trial. The movement starts after about 35 % of the trial and is cut
        off at its end.
    n_neurons : int, default=60
        Number of neurons.
    n_conditions : int, default=8
        Number of targets, evenly spaced on the circle. The numbers of trials per target differ
        by at most one.
    bin_width : float, default=0.02
        Width of a bin, in seconds.
    mean_rate : float, default=10.0
        Mean rate over neurons, in Hz. The mean rates of neurons have a log-normal distribution:
        at 10 Hz, a few neurons are below 1 Hz and a few above 40 Hz.
    modulation : float, default=1.0
        Strength of the shared modulation: over a reach, the log-rate of a neuron has a standard
        deviation of about ``0.6 * modulation``. At 0, rates are constant.
    variability : float, default=1.0
        Scale of the variability from trial to trial. At 0, all reaches to a target are identical.
    private_noise : float, default=0.0
        Standard deviation of slow fluctuations of the log-rate that are independent between
        neurons (white noise, smoothed by a Gaussian with a standard deviation of 150 ms). They
        are part of `rates`, but cannot be inferred from other neurons or from the hand.
    lag : float, default=0.1
        Time by which the command leads the hand, in seconds. Feedback has no lag, so neural
        activity leads the hand by between 0 and `lag`.
    distance : float, default=10.0
        Distance from the centre to the targets, in cm.
    duration : float, default=0.4
        Median duration of the movement, in seconds.
    random_state : int, RandomState instance or None, default=None
        Seed of neurons, reaches and spikes. For a given integer, the neurons do not depend on
        the number of trials.

    Returns
    -------
    data : :class:`~sklearn.utils.Bunch`
        Dictionary-like object with these attributes:

        spikes : ndarray of shape (n_trials, n_bins, n_neurons), int
            Spike counts per bin.
        rates : ndarray of shape (n_trials, n_bins, n_neurons)
            Expected spikes per bin.
        velocity : ndarray of shape (n_trials, n_bins, 2)
            Velocity of the hand at the centre of each bin, in cm/s.
        position : ndarray of shape (n_trials, n_bins, 2)
            Position of the hand at the end of each bin, in cm from the centre: the cumulative
            sum of ``velocity * bin_width``.
        latents : ndarray of shape (n_trials, n_bins, 11)
            Latent state. Each variable has mean 0 and standard deviation 1 over complete reaches
            without variability.
        latent_names : list of str
            Names of the latent variables.
        loadings : ndarray of shape (n_neurons, 11)
            Weights of the latent variables in the log-rate of each neuron.
        conditions : ndarray of shape (n_trials,), int
            Target of each trial.
        targets : ndarray of shape (n_conditions, 2)
            Positions of the targets, in cm.
        onsets : ndarray of shape (n_trials,)
            Time at which the hand starts to move, in seconds from the start of the trial.
        mean_rates : ndarray of shape (n_neurons,)
            Mean rate of each neuron over reaches without variability, in Hz.
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
    make_lorenz : A chaotic latent system without behaviour.
    make_chaotic_rnn : A chaotic network, with as many latent dimensions as neurons.

    Notes
    -----
    The hand follows a minimum-jerk profile [2]_ of random onset, direction, distance and
    duration, with corrections that curve its path. The rate of neuron n in Hz is

    .. math:: r_n(t) = \exp\left(b_n + s_n(w_n^\top z(t))\right), \quad
        s_n(x) = \begin{cases} x & x \le 0 \\ c_n \tanh(x / c_n) & x > 0 \end{cases}

    with the latent state z. The ceiling :math:`c_n` keeps the rate below about 200 Hz, or twice
    the neuron's mean rate if that is higher. The latent state contains

    - the plan (2 dimensions), proportional to the intended velocity, until shortly before the
      hand moves;
    - two rotational planes (4), at 1.2 and 2.2 Hz. They start from a state that depends on the
      direction of the reach (in the second plane, on twice its angle), then decay. In each trial,
      this state has a small random deviation that does not affect the hand;
    - the command (2), which is the hand velocity `lag` later; feedback (2), which is the current
      hand velocity; and the speed `lag` later (1). They cause the cosine tuning of motor cortex.

    For few trials with weak shared structure, where pooling over neurons and time matters most,
    use for instance ``n_trials=140, n_bins=26, n_neurons=45, mean_rate=18, modulation=0.35``.

    References
    ----------
    .. [1] Churchland, M. M. et al. (2012). Neural population dynamics during reaching. Nature,
       487, 51-56.
    .. [2] Flash, T. & Hogan, N. (1985). The coordination of arm movements: an experimentally
       confirmed mathematical model. Journal of Neuroscience, 5, 1688-1703.

    Examples
    --------
    >>> from sklearn_stndt.datasets import make_reaches
    >>> data = make_reaches(n_trials=24, random_state=0)
    >>> data.spikes.shape, data.velocity.shape
    ((24, 50, 60), (24, 50, 2))
    >>> data.targets[0]  # cm
    array([10., 0.])
    """
    check_count(n_trials, "n_trials")
    check_count(n_neurons, "n_neurons")
    task = {
        "n_bins": n_bins,
        "n_conditions": n_conditions,
        "bin_width": bin_width,
        "mean_rate": mean_rate,
        "modulation": modulation,
        "variability": variability,
        "private_noise": private_noise,
        "lag": lag,
        "distance": distance,
        "duration": duration,
    }
    _check_task(**task)
    _check_size(n_trials, n_bins, n_neurons, n_conditions)
    rng = check_random_state(random_state)
    # Neurons are drawn first, so that for a given seed they do not depend on `n_trials`.
    mean_rates, loadings = _draw_neurons(n_neurons, mean_rate, rng)
    mixing = _draw_mixing(rng)
    return _record(n_trials, mean_rates, loadings, mixing, rng, **task)


def make_reach_days(
    n_days=2,
    n_trials=200,
    n_bins=50,
    n_neurons=60,
    *,
    lost=1.0,
    tuning_drift=0.0,
    n_conditions=8,
    bin_width=0.02,
    mean_rate=10.0,
    modulation=1.0,
    variability=1.0,
    private_noise=0.0,
    lag=0.1,
    distance=10.0,
    duration=0.4,
    random_state=None,
):
    r"""Synthetic reaches on several days: the same dynamics and behaviour, other neurons.

    As :func:`make_reaches` on every day. The latent dynamics, the targets and the statistics of the
    hand stay the same; trials are new. From one day to the next, neurons are lost and others are
    recorded in their place, and the tuning of those that remain may drift.

    Parameters
    ----------
    n_days : int, default=2
        Number of days.
    n_trials : int or list of int, default=200
        Number of trials per day, or of each day.
    n_bins : int, default=50
        Number of bins per trial.
    n_neurons : int or list of int, default=60
        Number of neurons per day, or of each day.
    lost : float, default=1.0
        Fraction of neurons lost from one day to the next. Others, with rates and tuning of their
        own, take their places. At 1, no neuron is recorded on two days.
    tuning_drift : float, default=0.0
        Change of tuning from one day to the next of the neurons that remain, from 0 (none) to 1
        (unrelated): new loadings are :math:`\sqrt{1 - d^2}` times the old ones plus :math:`d` times
        those of another neuron.
    n_conditions, bin_width, mean_rate, modulation, variability, private_noise
        As in :func:`make_reaches`.
    lag, distance, duration
        As in :func:`make_reaches`.
    random_state : int, RandomState instance or None, default=None
        Seed of neurons, reaches and spikes of all days.

    Returns
    -------
    days : list of :class:`~sklearn.utils.Bunch`
        For each day, what :func:`make_reaches` returns, and in addition

        neurons : ndarray of shape (n_neurons,), int
            Number of each neuron; the same number on two days means the same neuron.

    Raises
    ------
    TypeError
        If an argument is not an integer or a number, as required.
    ValueError
        If an argument is out of range, or a list has not one item per day.

    Examples
    --------
    >>> from sklearn_stndt.datasets import make_reach_days
    >>> monday, tuesday = make_reach_days(2, n_trials=24, n_neurons=[60, 50], random_state=0)
    >>> monday.spikes.shape, tuesday.spikes.shape
    ((24, 50, 60), (24, 50, 50))
    >>> days = make_reach_days(2, n_trials=24, n_neurons=6, lost=0.5, random_state=0)
    >>> [day.neurons.tolist() for day in days]
    [[0, 1, 2, 3, 4, 5], [0, 7, 2, 9, 4, 11]]
    """
    check_count(n_days, "n_days")
    numbers_of_trials = _one_per_day(n_trials, n_days, "n_trials")
    numbers_of_neurons = _one_per_day(n_neurons, n_days, "n_neurons")
    check_number(lost, "lost", at_least=0, at_most=1)
    check_number(tuning_drift, "tuning_drift", at_least=0, at_most=1)
    task = {
        "n_bins": n_bins,
        "n_conditions": n_conditions,
        "bin_width": bin_width,
        "mean_rate": mean_rate,
        "modulation": modulation,
        "variability": variability,
        "private_noise": private_noise,
        "lag": lag,
        "distance": distance,
        "duration": duration,
    }
    _check_task(**task)
    n_in_all = sum(int(number) for number in numbers_of_trials)
    _check_size(n_in_all, n_bins, max(numbers_of_neurons), n_conditions)
    rng = check_random_state(random_state)
    mixing = _draw_mixing(rng)
    days: list[Bunch] = []
    previous: tuple = ()
    n_known = 0
    for n_neurons_of_day, n_trials_of_day in zip(
        numbers_of_neurons, numbers_of_trials, strict=True
    ):
        mean_rates, loadings = _draw_neurons(n_neurons_of_day, mean_rate, rng)
        numbers = n_known + np.arange(n_neurons_of_day)
        n_known += n_neurons_of_day
        if days:
            n_places = min(len(numbers), len(previous[0]))
            stay = rng.permutation(n_places)[round(lost * n_places) :]
            numbers[stay], mean_rates[stay] = previous[0][stay], previous[1][stay]
            old, other = np.sqrt(1 - tuning_drift**2), tuning_drift
            loadings[stay] = old * previous[2][stay] + other * loadings[stay]
        previous = numbers, mean_rates, loadings
        day = _record(n_trials_of_day, mean_rates, loadings, mixing, rng, **task)
        days.append(Loaded(**day, neurons=numbers))
    return days


def _one_per_day(number, n_days, name):
    """Numbers of all days, from one number or a list."""
    numbers = number if isinstance(number, list | tuple | np.ndarray) else [number] * n_days
    if len(numbers) != n_days:
        raise ValueError(
            f"{name} is a list of {len(numbers)}, but n_days={n_days}. Pass one number per day."
        )
    for number in numbers:
        check_count(number, name)
    return numbers


def _check_task(
    *,
    n_bins,
    n_conditions,
    bin_width,
    mean_rate,
    modulation,
    variability,
    private_noise,
    lag,
    distance,
    duration,
):
    check_count(n_bins, "n_bins")
    check_count(n_conditions, "n_conditions")
    check_number(bin_width, "bin_width", above=0)
    check_number(mean_rate, "mean_rate", above=0)
    check_number(modulation, "modulation", at_least=0)
    check_number(variability, "variability", at_least=0)
    check_number(private_noise, "private_noise", at_least=0, at_most=10)
    check_number(lag, "lag", at_least=0, at_most=3600)
    check_number(distance, "distance", above=0)
    check_number(duration, "duration", above=0, at_most=3600)


def _check_size(n_trials, n_bins, n_neurons, n_conditions):
    """Refuse trials that do not fit into memory."""
    check_memory(
        32 * int(n_trials) * int(n_bins) * (int(n_neurons) + len(_SHARES)) + 8 * int(n_conditions),
        f"Spikes and rates of {n_trials:,} trials, {n_bins:,} bins and {n_neurons:,} neurons",
        "Lower one of these.",
    )


def _draw_mixing(rng):
    """How the plan starts the rotations, (n_planes, 2, 2)."""
    return np.linalg.qr(rng.standard_normal((len(_FREQUENCIES), 2, 2)))[0]


def _record(
    n_trials,
    mean_rates,
    loadings,
    mixing,
    rng,
    *,
    n_bins,
    n_conditions,
    bin_width,
    mean_rate,
    modulation,
    variability,
    private_noise,
    lag,
    distance,
    duration,
):
    """Draw the trials of one day."""
    n_neurons, distance = len(mean_rates), float(distance)
    loadings = modulation * loadings
    conditions = rng.permutation(np.arange(n_trials) % n_conditions)

    time = (np.arange(n_bins) + 0.5) * bin_width
    onset = _ONSET * n_bins * bin_width
    angles = 2 * np.pi * np.arange(n_conditions) / n_conditions
    reaches = _draw_reaches(angles[conditions], onset, distance, duration, variability, rng)

    def latent_state(times, reaches):
        return _latent_state(times, reaches, lag, mixing, distance / duration)

    # The scale is that of complete reaches, even if trials are shorter.
    whole_time = np.arange(0, 1 + lag + duration, 0.01)
    whole = latent_state(whole_time, _usual_reaches(0.5 + lag, distance, duration))
    centre, scale = whole.mean(axis=(0, 1)), whole.std(axis=(0, 1))
    latents = (latent_state(time, reaches) - centre) / scale
    usual = (latent_state(time, _usual_reaches(onset, distance, duration)) - centre) / scale

    ceiling = np.log(np.maximum(_PEAK_RATE / mean_rates, 2))
    mean_gain = np.exp(_saturate(usual @ loadings.T, ceiling)).mean(axis=(0, 1))  # (neurons,)
    log_gain = _saturate(latents @ loadings.T, ceiling)  # (trials, bins, neurons)
    if private_noise:
        log_gain += private_noise * _slow_noise(log_gain.shape, bin_width, rng)
        mean_gain *= np.exp(private_noise**2 / 2)
    rates = mean_rates * bin_width * np.exp(log_gain) / mean_gain
    check_rates(rates, "mean_rate, bin_width, modulation, variability and private_noise")
    velocity = _velocity(time, reaches)
    return Loaded(
        spikes=rng.poisson(rates),
        rates=rates,
        velocity=velocity,
        position=np.cumsum(velocity, axis=1) * bin_width,
        latents=latents,
        latent_names=list(_SHARES),
        loadings=loadings,
        conditions=conditions,
        targets=distance * _unit(angles),
        onsets=reaches["onset"],
        mean_rates=mean_rates,
        bin_width=bin_width,
        DESCR=(
            f"Synthetic centre-out reaches: {n_trials} trials of {n_bins} bins of "
            f"{1000 * bin_width:g} ms, {n_conditions} targets at {distance:g} cm, {n_neurons} "
            f"Poisson neurons (mean rate {mean_rate:g} Hz) driven by {len(_SHARES)} shared "
            f"latent variables."
        ),
    )


def _draw_neurons(n_neurons, mean_rate, rng):
    """Mean rates in Hz, (n_neurons,), and loadings of the log-rate, (n_neurons, n_latents)."""
    # Evenly spaced quantiles, so that small populations have the heavy tail too.
    quantiles = norm.ppf((np.arange(n_neurons) + 0.5) / n_neurons)
    relative = np.exp(_RATE_STD * rng.permutation(quantiles))
    shares = np.array(list(_SHARES.values()))
    loadings = rng.standard_normal((n_neurons, len(shares))) * np.sqrt(shares)
    loadings /= np.linalg.norm(loadings, axis=1, keepdims=True)
    depth = _DEPTH * np.exp(_DEPTH_STD * rng.standard_normal((n_neurons, 1)))
    return mean_rate * relative / relative.mean(), depth * loadings


def _usual_reaches(onset, distance, duration, n_directions=16):
    """Reaches without variability, in all directions."""
    return {
        "angle": 2 * np.pi * np.arange(n_directions) / n_directions,
        "distance": np.full(n_directions, distance),
        "duration": np.full(n_directions, duration),
        "onset": np.full(n_directions, onset),
        "wobble": np.zeros((n_directions, 2, 2)),
        "state": np.zeros((n_directions, len(_FREQUENCIES), 2)),
    }


def _draw_reaches(angle, onset, distance, duration, variability, rng):
    """Reaches towards the given angles (rad), with random deviations in each."""

    def deviation(std, *shape):
        # No outliers: reaches of a trained monkey never differ completely from the others.
        noise = rng.standard_normal((len(angle), *shape)).clip(-2, 2)
        return variability * std * noise

    return {
        "angle": angle + deviation(_DIRECTION_STD),
        "distance": distance * np.exp(deviation(_DISTANCE_STD)),
        "duration": duration * np.exp(deviation(_DURATION_STD)),
        "onset": np.maximum(onset + deviation(_ONSET_STD), 0.0),
        "wobble": deviation(_WOBBLE_STD, 2, 2),
        "state": deviation(_STATE_STD, len(_FREQUENCIES), 2),
    }


def _velocity(time, reaches):
    """Hand velocity at the given times (s), (n_trials, n_bins, 2)."""
    duration = reaches["duration"][:, None]
    phase = ((time - reaches["onset"][:, None]) / duration).clip(0, 1)  # (trials, bins)
    bell = 30 * (phase * (1 - phase)) ** 2
    main = bell[..., None] * _unit(reaches["angle"])[:, None]  # (trials, bins, 2)
    # Corrections are zero at both ends and cause no net displacement.
    waves = np.sin(2 * np.pi * phase[..., None] * [1, 2])
    waves *= np.sin(np.pi * phase[..., None]) ** 2
    corrections = _PEAK_TO_MEAN * waves @ reaches["wobble"]
    mean_speed = reaches["distance"][:, None] / duration
    return mean_speed[..., None] * (main + corrections)


def _latent_state(time, reaches, lag, mixing, mean_speed):
    """Latent state before scaling, (n_trials, n_bins, n_latents)."""
    vigour = (reaches["distance"] / reaches["duration"] / mean_speed)[:, None]
    intent = vigour * _unit(reaches["angle"])  # (trials, 2)
    twice = vigour * _unit(2 * reaches["angle"])
    ahead = time + lag - reaches["onset"][:, None]  # (trials, bins), s since the command began

    held = expit((ahead + _PLAN_LENGTH) / 0.04) * expit(-ahead / 0.04)
    plan = held[..., None] * intent[:, None]  # (trials, bins, 2)

    start = np.einsum("kij,nkj->nki", mixing, np.stack([intent, twice], axis=1))
    start += reaches["state"]  # (trials, planes, 2)
    since = (ahead + _HEAD_START).clip(0)[..., None]  # (trials, bins, 1)
    envelope = (since / _RISE) ** 2 * np.exp(2 * (1 - since / _RISE))
    turn = np.exp(2j * np.pi * _FREQUENCIES * since)  # (trials, bins, planes)
    rotation = envelope * turn * (start[..., 0] + 1j * start[..., 1])[:, None]
    rotation = np.stack([rotation.real, rotation.imag], axis=-1)  # (trials, bins, planes, 2)

    command = _velocity(time + lag, reaches) / mean_speed
    feedback = _velocity(time, reaches) / mean_speed
    speed = np.linalg.norm(command, axis=-1, keepdims=True)
    rotation = rotation.reshape(*speed.shape[:2], -1)
    return np.concatenate([plan, rotation, command, feedback, speed], axis=-1)


def _saturate(drive, ceiling):
    """Saturate excitation below `ceiling`; leave suppression unchanged."""
    return np.where(drive > 0, ceiling * np.tanh(drive / ceiling), drive)


def _slow_noise(shape, bin_width, rng):
    """Smooth noise of unit variance, independent between trials and neurons."""
    n_trials, n_bins, n_neurons = shape
    width = _PRIVATE_WIDTH / bin_width
    margin = int(np.ceil(4 * width))  # so that the variance is the same at the edges
    noise = rng.standard_normal((n_trials, n_bins + 2 * margin, n_neurons))
    noise = gaussian_filter1d(noise, width, axis=1)[:, margin : margin + n_bins]
    # Exact gain of the filter, which is correct also if it is as narrow as a bin.
    impulse = np.zeros(2 * margin + 1)
    impulse[margin] = 1
    return noise / np.linalg.norm(gaussian_filter1d(impulse, width))


def _unit(angle):
    """Unit vectors at the given angles, (..., 2)."""
    return np.stack([np.cos(angle), np.sin(angle)], axis=-1)
