"""Synthetic calcium imaging with known rates."""

import numpy as np
from scipy.signal import lfilter
from sklearn.utils import check_random_state

from sklearn_stndt.datasets._checks import check_count, check_memory, check_number
from sklearn_stndt.datasets._loaded import Loaded
from sklearn_stndt.datasets.reaches import make_reaches

_SPREAD = 0.25  # standard deviation over neurons of the log of amplitudes and of noise


def make_calcium(
    n_trials=100,
    n_bins=60,
    n_neurons=60,
    *,
    fps=30.0,
    decay_time=0.5,
    rise_time=0.05,
    amplitude=0.2,
    noise=0.1,
    gap=1.0,
    n_conditions=8,
    mean_rate=5.0,
    modulation=1.0,
    variability=1.0,
    private_noise=0.0,
    random_state=None,
):
    r"""Synthetic calcium imaging of motor cortex during reaches: rates, spikes and fluorescence.

    Rates, spikes and hand velocity are those of :func:`make_reaches`, with one bin per frame. Each
    spike adds a transient to the fluorescence of its neuron, which rises and decays exponentially;
    white noise is added. The recording is continuous, so that at the start of a trial calcium from
    before is still there.

    Parameters
    ----------
    n_trials : int, default=100
        Number of trials.
    n_bins : int, default=60
        Number of frames per trial.
    n_neurons : int, default=60
        Number of neurons.
    fps : float, default=30.0
        Frames per second.
    decay_time : float, default=0.5
        Time constant of the decay of a transient, in seconds.
    rise_time : float, default=0.05
        Time constant of its rise, in seconds; below `decay_time`. At 0, it rises within a frame.
    amplitude : float, default=0.2
        Peak of the transient of a single spike in dF/F, median over neurons.
    noise : float, default=0.1
        Standard deviation of the noise of a frame in dF/F, median over neurons.
    gap : float, default=1.0
        Time between trials, in seconds.
    n_conditions, mean_rate, modulation, variability, private_noise
        As in :func:`make_reaches`.
    random_state : int, RandomState instance or None, default=None
        Seed of neurons, reaches, spikes and noise.

    Returns
    -------
    data : :class:`~sklearn.utils.Bunch`
        What :func:`make_reaches` returns (`spikes`, `rates`, `velocity` and others), with one bin
        per frame, and in addition

        dff : ndarray of shape (n_trials, n_bins, n_neurons)
            Fluorescence of each frame in dF/F, with noise.
        calcium : ndarray of shape (n_trials, n_bins, n_neurons)
            The same without noise.
        recording : ndarray of shape (n_frames, n_neurons)
            dF/F of the whole recording, gaps included, as for a deconvolution.
        time : ndarray of shape (n_frames,)
            Start of each frame of the recording, in seconds.
        starts : ndarray of shape (n_trials,)
            Start of each trial, in seconds.
        amplitudes, noise_stds : ndarray of shape (n_neurons,)
            Peak of the transient of a spike, and standard deviation of the noise, in dF/F.
        ar : ndarray of shape (2,)
            Coefficients :math:`g_1, g_2` of the autoregressive process.
        fps : float
            Frames per second.

    Raises
    ------
    TypeError
        If an argument is not an integer or a number, as required.
    ValueError
        If an argument is out of range.

    See Also
    --------
    make_reaches : The same without an indicator.
    load_suite2p : Recordings.

    Notes
    -----
    With spikes :math:`s_t` per frame, calcium is an autoregressive process of second order, as
    deconvolution assumes [1]_:

    .. math:: c_t = g_1 c_{t-1} + g_2 c_{t-2} + a\, s_t, \quad g_1 = d + r, \quad g_2 = -d\, r,

    where :math:`d` and :math:`r` are the factors by which decay and rise fall in a frame, such as
    :math:`d = e^{-1 / (\tau f)}` for a decay time :math:`\tau` and a frame rate :math:`f`. The
    amplitude :math:`a` is scaled so that the highest frame of a single transient is that of the
    neuron in `amplitudes`. Amplitudes and noise are log-normal over neurons, with a standard
    deviation of the logarithm of 0.25. Between trials, rates go linearly from those at the end of
    one to those at the start of the next.

    References
    ----------
    .. [1] Friedrich, J., Zhou, P. & Paninski, L. (2017). Fast online deconvolution of calcium
       imaging data. PLoS Computational Biology, 13, e1005423.

    Examples
    --------
    >>> from sklearn_stndt.datasets import make_calcium
    >>> data = make_calcium(n_trials=20, random_state=0)
    >>> data.dff.shape, data.rates.shape, data.recording.shape
    ((20, 60, 60), (20, 60, 60), (1830, 60))
    """
    check_count(n_trials, "n_trials")
    check_count(n_bins, "n_bins")
    check_count(n_neurons, "n_neurons")
    check_number(fps, "fps", above=0, at_most=1e6)
    check_number(decay_time, "decay_time", above=0, at_most=3600)
    check_number(rise_time, "rise_time", at_least=0)
    if rise_time >= decay_time:
        raise ValueError(
            f"rise_time must be below decay_time, got {rise_time!r} and {decay_time!r}. Exchange "
            "them if they are in the wrong order."
        )
    check_number(amplitude, "amplitude", above=0, at_most=1e6)
    check_number(noise, "noise", at_least=0, at_most=1e6)
    check_number(gap, "gap", at_least=0, at_most=3600)
    n_gap = round(gap * fps)  # frames
    n_frames = int(n_trials) * (int(n_bins) + n_gap) + n_gap
    n_decay = int(decay_time * fps) + 2  # frames: the peak is not later than the decay time
    check_memory(
        64 * n_frames * int(n_neurons) + 16 * n_decay,
        f"A recording of {n_frames:,} frames and {n_neurons:,} neurons, with transients of "
        f"{n_decay:,} frames,",
        "Lower n_trials, n_bins, n_neurons, gap, decay_time or fps.",
    )
    rng = check_random_state(random_state)
    reaches = make_reaches(
        n_trials,
        n_bins,
        n_neurons,
        n_conditions=n_conditions,
        bin_width=1 / fps,
        mean_rate=mean_rate,
        modulation=modulation,
        variability=variability,
        private_noise=private_noise,
        random_state=rng,
    )
    first = n_gap + (n_bins + n_gap) * np.arange(n_trials)  # frames
    frames = first[:, None] + np.arange(n_bins)  # (trials, bins)

    spikes = rng.poisson(_rates_of_recording(reaches.rates, n_gap))  # (n_frames, n_neurons)
    spikes[frames] = reaches.spikes
    amplitudes = amplitude * np.exp(_SPREAD * rng.standard_normal(n_neurons))
    noise_stds = noise * np.exp(_SPREAD * rng.standard_normal(n_neurons))
    coefficients = _coefficients(fps, decay_time, rise_time)
    calcium = amplitudes * lfilter(
        [1 / _peak(coefficients, n_decay)], [1, *-coefficients], spikes.astype(np.float64), axis=0
    )
    recording = calcium + noise_stds * rng.standard_normal(calcium.shape)
    reaches["DESCR"] = (
        f"Synthetic calcium imaging at {fps:g} Hz: {n_trials} reaches of {n_bins} frames, "
        f"{n_neurons} neurons (mean rate {mean_rate:g} Hz), a transient of {amplitude:g} dF/F per "
        f"spike that rises in {rise_time:g} s and decays in {decay_time:g} s, noise of {noise:g} "
        "dF/F."
    )
    return Loaded(
        **reaches,
        dff=recording[frames],
        calcium=calcium[frames],
        recording=recording,
        time=np.arange(n_frames) / fps,
        starts=first / fps,
        amplitudes=amplitudes,
        noise_stds=noise_stds,
        ar=coefficients,
        fps=fps,
    )


def _coefficients(fps, decay_time, rise_time):
    """Coefficients g1 and g2 of the autoregressive process."""
    decay = np.exp(-1 / (decay_time * fps))
    rise = np.exp(-1 / (rise_time * fps)) if rise_time else 0.0
    return np.array([decay + rise, -decay * rise])


def _peak(coefficients, n_frames):
    """Highest of the first frames of the response to a single spike without scaling."""
    spike = np.zeros(n_frames)
    spike[0] = 1
    return lfilter([1], [1, *-coefficients], spike).max()


def _rates_of_recording(rates, n_gap):
    """Rates of the whole recording, (n_frames, n_neurons), from those of trials."""
    before = np.concatenate([rates[:1, 0], rates[:, -1]])  # at both ends of each gap
    after = np.concatenate([rates[:, 0], rates[-1:, -1]])
    share = (np.arange(n_gap)[:, None] + 1) / (n_gap + 1)  # (n_gap, 1)
    gaps = before[:, None] + share * (after - before)[:, None]  # (n_trials + 1, n_gap, n_neurons)
    trials = np.concatenate([gaps[:-1], rates], axis=1).reshape(-1, rates.shape[-1])
    return np.concatenate([trials, gaps[-1]])
