"""Synthetic motor cortex during centre-out reaches."""

import numpy as np
from scipy.ndimage import gaussian_filter1d
from scipy.special import expit
from scipy.stats import norm
from sklearn.utils import Bunch, check_random_state

from ._checks import check_count, check_number

# Every neuron mixes all latent variables. A share is the average part of a variable in the
# variance of a neuron's log-rate.
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
_RATE_STD = 1.1  # of the logarithm of the neurons' mean rates
_DEPTH = 0.6  # standard deviation of the log-rate in time, median over neurons
_DEPTH_STD = 0.25  # of the logarithm of the depth
_PEAK_RATE = 200.0  # Hz, where rates saturate

# Rotations at one to three hertz that start shortly before the hand moves and then decay.
_FREQUENCIES = np.array([1.2, 2.2])  # Hz, one a plane
_RISE = 0.18  # s from the start of the rotations to their peak
_HEAD_START = 0.05  # s by which the rotations precede the command
_PLAN_LENGTH = 0.3  # s before the command in which the plan is held

# How single trials differ from the usual reach.
_ONSET = 0.35  # mean onset of the movement, as a fraction of the trial
_ONSET_STD = 0.06  # s
_DIRECTION_STD = np.deg2rad(10)
_DISTANCE_STD = 0.12  # of the logarithm
_DURATION_STD = 0.15  # of the logarithm
_WOBBLE_STD = 0.2  # corrections on the way, as a fraction of the peak speed
_STATE_STD = 0.25  # of the initial state of the rotations
_PRIVATE_WIDTH = 0.15  # s, Gaussian width of private fluctuations

_PEAK_TO_MEAN = 1.875  # speed of a minimum-jerk movement


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
    r"""Spikes of motor cortex and hand velocity during centre-out reaches.

    The hand reaches from a centre to targets on a circle, while a latent state of 11 dimensions
    plans the reach, rotates, commands the velocity and hears back from it. Poisson neurons of
    very different rates mix all of it, as in motor and premotor cortex [1]_. Reaches to the
    same target differ from trial to trial, in the spikes and in the hand alike, so that
    averages over trials explain only a part of either.

    Parameters
    ----------
    n_trials : int, default=200
        Number of trials.
    n_bins : int, default=50
        Number of bins of a trial. The movement starts after about 35 % of them and is cut off
        where the trial ends.
    n_neurons : int, default=60
        Number of neurons.
    n_conditions : int, default=8
        Number of targets, evenly spaced on the circle. All are reached equally often, give or
        take one trial.
    bin_width : float, default=0.02
        Width of a bin, in seconds.
    mean_rate : float, default=10.0
        Mean rate of the population, in Hz. The rates of the neurons are log-normal around it:
        at 10 Hz a few neurons stay below 1 Hz, and a few exceed 40 Hz.
    modulation : float, default=1.0
        Strength of the shared modulation: the log-rate of a neuron varies over a reach with a
        standard deviation of about ``0.6 * modulation``. At 0 the rates are constant.
    variability : float, default=1.0
        How much reaches to the same target differ. At 0 they are all the same.
    private_noise : float, default=0.0
        Standard deviation of slow fluctuations of the log-rate that a neuron shares with no
        other (Gaussian, 150 ms wide). They are part of `rates`, and neither other neurons nor
        the hand tell anything of them.
    lag : float, default=0.1
        Time by which the command precedes the hand, in seconds. Feedback has no lag, so that
        the tuning of the neurons leads the hand by something between 0 and `lag`.
    distance : float, default=10.0
        Distance from the centre to the targets, in cm.
    duration : float, default=0.4
        Median duration of the movement, in seconds.
    random_state : int, RandomState instance or None, default=None
        Seed of neurons, reaches and spikes. An integer gives the same neurons for every number
        of trials.

    Returns
    -------
    data : :class:`~sklearn.utils.Bunch`
        Dictionary-like object with the attributes:

        spikes : ndarray of shape (n_trials, n_bins, n_neurons), int
            Spike counts per bin.
        rates : ndarray of shape (n_trials, n_bins, n_neurons)
            Expected spikes per bin.
        velocity : ndarray of shape (n_trials, n_bins, 2)
            Velocity of the hand at the centre of each bin, in cm/s.
        position : ndarray of shape (n_trials, n_bins, 2)
            Position of the hand at the end of each bin, in cm from the centre: the running sum
            of ``velocity * bin_width``.
        latents : ndarray of shape (n_trials, n_bins, 11)
            State of the population. The scale of each variable is its standard deviation over
            reaches without variation.
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
            Mean rate of each neuron over reaches without variation, in Hz.
        bin_width : float
            Width of a bin, in seconds.
        DESCR : str
            Description of the data set.

    Raises
    ------
    TypeError
        If a number of something is not an integer, or another argument not a number.
    ValueError
        If an argument is out of its range.

    See Also
    --------
    make_lorenz : A chaotic latent system without behaviour.
    make_chaotic_rnn : As many latent dimensions as neurons.

    Notes
    -----
    The hand follows a minimum-jerk profile [2]_ of random onset, direction, distance and
    duration, with corrections on the way that bend the path. The rate of neuron n in Hz is

    .. math:: r_n(t) = \exp\left(b_n + s_n(w_n^\top z(t))\right), \quad
        s_n(x) = \begin{cases} x & x \le 0 \\ c_n \tanh(x / c_n) & x > 0 \end{cases}

    with the latent state z and a ceiling :math:`c_n` that keeps the rate below about 200 Hz, or
    twice the neuron's mean where that is more. The latent state holds

    - the plan (2 dimensions), proportional to the intended velocity, until shortly before the
      hand moves;
    - two planes of rotation (4), at 1.2 and 2.2 Hz, that start from a state set by the plan
      (the second one by twice the angle of the reach) and decay. Each trial has a small
      deviation of its own here, which the hand does not show;
    - the command (2), which is the velocity of the hand after `lag`, feedback (2), which is the
      velocity now, and the speed after `lag` (1). They make the cosine tuning of motor cortex.

    For few trials with weak shared structure, where averaging over neurons and time matters
    most, set for instance ``n_trials=140, n_bins=26, n_neurons=45, mean_rate=18,
    modulation=0.35``.

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
    check_count(n_bins, "n_bins")
    check_count(n_neurons, "n_neurons")
    check_count(n_conditions, "n_conditions")
    check_number(bin_width, "bin_width", above=0)
    check_number(mean_rate, "mean_rate", above=0)
    check_number(modulation, "modulation", at_least=0)
    check_number(variability, "variability", at_least=0)
    check_number(private_noise, "private_noise", at_least=0)
    check_number(lag, "lag", at_least=0)
    check_number(distance, "distance", above=0)
    check_number(duration, "duration", above=0)
    rng = check_random_state(random_state)

    # Neurons come first, so that a seed means the same neurons for every number of trials.
    mean_rates, loadings = _draw_neurons(n_neurons, mean_rate, rng)
    loadings *= modulation
    mixing = np.linalg.qr(rng.standard_normal((len(_FREQUENCIES), 2, 2)))[0]
    conditions = rng.permutation(np.arange(n_trials) % n_conditions)

    time = (np.arange(n_bins) + 0.5) * bin_width
    onset = _ONSET * n_bins * bin_width
    angles = 2 * np.pi * np.arange(n_conditions) / n_conditions
    reaches = _draw_reaches(angles[conditions], onset, distance, duration, variability, rng)

    def latent_state(times, reaches):
        return _latent_state(times, reaches, lag, mixing, distance / duration)

    # The scale comes from whole reaches, however short the trials are.
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
    velocity = _velocity(time, reaches)
    return Bunch(
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
    # Evenly spaced quantiles: the heavy tail is there in every small population too.
    quantiles = norm.ppf((np.arange(n_neurons) + 0.5) / n_neurons)
    relative = np.exp(_RATE_STD * rng.permutation(quantiles))
    shares = np.array(list(_SHARES.values()))
    loadings = rng.standard_normal((n_neurons, len(shares))) * np.sqrt(shares)
    loadings /= np.linalg.norm(loadings, axis=1, keepdims=True)
    depth = _DEPTH * np.exp(_DEPTH_STD * rng.standard_normal((n_neurons, 1)))
    return mean_rate * relative / relative.mean(), depth * loadings


def _usual_reaches(onset, distance, duration, n_directions=16):
    """Reaches without any variation, in all directions."""
    return {
        "angle": 2 * np.pi * np.arange(n_directions) / n_directions,
        "distance": np.full(n_directions, distance),
        "duration": np.full(n_directions, duration),
        "onset": np.full(n_directions, onset),
        "wobble": np.zeros((n_directions, 2, 2)),
        "state": np.zeros((n_directions, len(_FREQUENCIES), 2)),
    }


def _draw_reaches(angle, onset, distance, duration, variability, rng):
    """Reaches towards the given angles, each with its own deviations."""

    def deviation(std, *shape):
        # No outliers: a reach of a trained monkey is never wholly unlike the others.
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
    """Velocity of the hand at the given times, (n_trials, n_bins, 2)."""
    duration = reaches["duration"][:, None]
    phase = ((time - reaches["onset"][:, None]) / duration).clip(0, 1)  # (trials, bins)
    bell = 30 * (phase * (1 - phase)) ** 2
    main = bell[..., None] * _unit(reaches["angle"])[:, None]  # (trials, bins, 2)
    # Corrections on the way: nil at both ends, and without a net displacement.
    waves = np.sin(2 * np.pi * phase[..., None] * [1, 2])
    waves *= np.sin(np.pi * phase[..., None]) ** 2
    corrections = _PEAK_TO_MEAN * waves @ reaches["wobble"]
    mean_speed = reaches["distance"][:, None] / duration
    return mean_speed[..., None] * (main + corrections)


def _latent_state(time, reaches, lag, mixing, mean_speed):
    """State of the population in raw units, (n_trials, n_bins, n_latents)."""
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
    """Leave suppression as it is, and bend excitation so that it stays below `ceiling`."""
    return np.where(drive > 0, ceiling * np.tanh(drive / ceiling), drive)


def _slow_noise(shape, bin_width, rng):
    """Smooth noise of unit variance, independent between trials and neurons."""
    n_trials, n_bins, n_neurons = shape
    width = _PRIVATE_WIDTH / bin_width
    margin = int(np.ceil(4 * width))  # so that the edges have the variance of the middle
    noise = rng.standard_normal((n_trials, n_bins + 2 * margin, n_neurons))
    noise = gaussian_filter1d(noise, width, axis=1)[:, margin : margin + n_bins]
    # Exact gain of the filter: also right where it is as narrow as a bin.
    impulse = np.zeros(2 * margin + 1)
    impulse[margin] = 1
    return noise / np.linalg.norm(gaussian_filter1d(impulse, width))


def _unit(angle):
    """Unit vectors at the given angles, (..., 2)."""
    return np.stack([np.cos(angle), np.sin(angle)], axis=-1)
