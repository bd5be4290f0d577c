"""A unit for ezmsg, the framework of live pipelines; import it as `sklearn_stndt.live.ezmsg`.

It is not imported with the package, because it needs ezmsg: ``pip install "sklearn-stndt[live]"``.
"""

from collections.abc import AsyncGenerator
from dataclasses import replace
from typing import Any

import numpy as np

try:
    import ezmsg.core as ez
    from ezmsg.util.messages.axisarray import AxisArray
except ImportError as error:
    raise ImportError(
        'sklearn_stndt.live.ezmsg needs ezmsg. Install it with: pip install "sklearn-stndt[live]"'
    ) from error

from sklearn_stndt.streaming import RateStream

__all__ = ["RateStreamSettings", "RateStreamUnit", "infer_message"]


class RateStreamSettings(ez.Settings):
    """Settings of `RateStreamUnit`.

    Parameters
    ----------
    estimator : STNDTEstimator, BaggingEnsemble or Pipeline
        Fitted and causal, as for :class:`~sklearn_stndt.streaming.RateStream`.
    time_dim, channel_dim : str, default="time" and "ch"
        Names of the dimensions of messages.
    """

    estimator: Any
    time_dim: str = "time"
    channel_dim: str = "ch"


class RateStreamState(ez.State):
    """The stream of a unit."""

    stream: RateStream


class RateStreamUnit(ez.Unit):
    """Turns messages of spike counts into messages of rates, or of behaviour, bin by bin.

    A message is an AxisArray with the dimensions of the settings, in any order and of any number of
    bins. The message that follows has the same bins.
    """

    SETTINGS = RateStreamSettings
    STATE = RateStreamState

    INPUT_SIGNAL = ez.InputStream(AxisArray)
    INPUT_RESET = ez.InputStream(ez.Flag)
    OUTPUT_SIGNAL = ez.OutputStream(AxisArray)

    async def initialize(self) -> None:
        """Make the stream, before the first message."""
        self.STATE.stream = RateStream(self.SETTINGS.estimator)

    @ez.subscriber(INPUT_RESET)
    async def on_reset(self, _: ez.Flag) -> None:
        """Begin anew, as :meth:`RateStream.reset`."""
        self.STATE.stream.reset()

    @ez.subscriber(INPUT_SIGNAL)
    @ez.publisher(OUTPUT_SIGNAL)
    async def on_signal(self, message: AxisArray) -> AsyncGenerator:
        """Infer the bins of a message."""
        settings = self.SETTINGS
        inferred = infer_message(
            self.STATE.stream, message, settings.time_dim, settings.channel_dim
        )
        yield self.OUTPUT_SIGNAL, inferred


def infer_message(
    stream: RateStream, message: AxisArray, time_dim: str = "time", channel_dim: str = "ch"
) -> AxisArray:
    """Pass the bins of a message through a stream.

    Parameters
    ----------
    stream : RateStream
        The stream.
    message : AxisArray
        Counts of consecutive bins.
    time_dim, channel_dim : str
        Names of its dimensions.

    Returns
    -------
    AxisArray
        With the dimensions and the time axis of the message, and its channels if rates are
        inferred. Behaviour of one variable has a single channel.

    Raises
    ------
    ValueError
        If the message has other dimensions.
    """
    if sorted(message.dims) != sorted([time_dim, channel_dim]):
        raise ValueError(
            f"The message has the dimensions {message.dims}, but {[time_dim, channel_dim]} are "
            "expected. Set time_dim and channel_dim, and reduce the message to them."
        )
    bins = np.asarray(message.data)
    bins = bins if message.dims[0] == time_dim else bins.T
    results = np.array([stream.step(counts) for counts in bins])
    results = results.reshape(len(bins), -1 if len(bins) else stream.n_neurons)
    axes = dict(message.axes)
    if results.shape[1] != bins.shape[1]:
        axes.pop(channel_dim, None)
    data = results if message.dims[0] == time_dim else results.T
    return replace(message, data=data, axes=axes)
