"""The decoder interface of the FALCON benchmark."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sklearn_stndt.streaming import RateStream


class FalconDecoder:
    """Causal pipelines with the decoder interface of the FALCON benchmark [1]_.

    It has the methods of ``falcon_challenge.interface.BCIDecoder``, and needs no package of the
    benchmark: the evaluator passes one bin of each session in a batch at a time.

    Parameters
    ----------
    estimator : Pipeline or dict of Pipelines
        Fitted, with a causal network and a decoder, as for
        :class:`~sklearn_stndt.streaming.RateStream`. A dict has one for each session, under the
        tag of its data set; the key ``""`` is for all other sessions.
    batch_size : int, default=1
        Number of sessions at once.
    reset_when_done : bool, default=False
        Begin anew after each trial. True for networks that were fitted to trials; False for those
        that were fitted to continuous recordings.

    References
    ----------
    .. [1] B. Karpowicz et al., "Few-shot Algorithms for Consistent Neural Decoding (FALCON)
       Benchmark", NeurIPS 2024.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.linear_model import Ridge
    >>> from sklearn.pipeline import make_pipeline
    >>> from sklearn_stndt import STNDTEstimator
    >>> from sklearn_stndt.datasets import make_reaches
    >>> from sklearn_stndt.live import FalconDecoder
    >>> data = make_reaches(n_trials=20, n_bins=20, n_neurons=8, random_state=0)
    >>> spikes, velocity = data.spikes.reshape(-1, 8), data.velocity.reshape(-1, 2)
    >>> network = STNDTEstimator(causal=True, window=20, max_epochs=2, random_state=0)
    >>> decoder = FalconDecoder(make_pipeline(network, Ridge()).fit(spikes, velocity))
    >>> decoder.reset(["session 1"])
    >>> decoder.predict(spikes[:1]).shape
    (1, 2)
    """

    def __init__(
        self, estimator: Any, batch_size: int = 1, *, reset_when_done: bool = False
    ) -> None:
        self.estimator = estimator
        self.batch_size = batch_size
        self.reset_when_done = reset_when_done
        self._tags: list[str] = []
        self._streams: list[RateStream] = []

    def set_batch_size(self, batch_size: int) -> None:
        """Set the number of sessions at once, before :meth:`reset`.

        Parameters
        ----------
        batch_size : int
            Number of sessions.
        """
        self.batch_size = batch_size
        self._tags, self._streams = [], []

    def reset(self, dataset_tags: Sequence[Any] = ("",)) -> None:
        """Begin the sessions of a batch.

        Sessions whose tag is the same as before go on, unless all are.

        Parameters
        ----------
        dataset_tags : sequence of str, length batch_size, default=("",)
            Tags of the sessions.

        Raises
        ------
        ValueError
            If there are more or fewer than `batch_size`.
        KeyError
            If there is no estimator for a session.
        """
        tags = [str(tag) for tag in dataset_tags]
        if len(tags) != self.batch_size:
            raise ValueError(
                f"dataset_tags has {len(tags)} tags, but batch_size is {self.batch_size}. Pass one "
                "tag for each session of the batch."
            )
        going_on = [tag == old for tag, old in zip(tags, self._tags, strict=False)]
        if not going_on or all(going_on):
            going_on = [False] * len(tags)
        self._streams = [
            self._streams[i] if goes_on else RateStream(self._estimator_of(tags[i]))
            for i, goes_on in enumerate(going_on)
        ]
        self._tags = tags

    def _estimator_of(self, tag: str) -> Any:
        if not isinstance(self.estimator, Mapping):
            return self.estimator
        if tag not in self.estimator and "" not in self.estimator:
            raise KeyError(
                f"There is no estimator for the session {tag!r}, only for "
                f"{', '.join(map(repr, self.estimator))}. Add it, or one for the key ''."
            )
        return self.estimator.get(tag, self.estimator.get(""))

    def predict(self, neural_observations: ArrayLike) -> NDArray:
        """Decode the next bin of each session.

        Parameters
        ----------
        neural_observations : array-like of shape (batch_size, n_neurons)
            Spikes in the bin.

        Returns
        -------
        ndarray of shape (batch_size, n_targets)
        """
        bins = self._check(neural_observations)
        return np.stack(
            [stream.step(counts) for stream, counts in zip(self._streams, bins, strict=True)]
        )

    def observe(self, neural_observations: ArrayLike) -> None:
        """Read the next bin of each session without a prediction.

        Parameters
        ----------
        neural_observations : array-like of shape (batch_size, n_neurons)
            Spikes in the bin.
        """
        for stream, counts in zip(self._streams, self._check(neural_observations), strict=True):
            stream.warm_up(counts[None])

    def on_done(self, dones: ArrayLike) -> None:
        """Note which trials have ended.

        Parameters
        ----------
        dones : array-like of bool, shape (batch_size,)
            True where the trial of a session has ended.
        """
        if self.reset_when_done:
            for stream, done in zip(self._streams, np.ravel(dones), strict=True):
                if done:
                    stream.reset()

    def _check(self, neural_observations: ArrayLike) -> NDArray:
        if not self._streams:
            self.reset([""] * self.batch_size)
        bins = np.asarray(neural_observations)
        if bins.ndim != 2 or len(bins) != self.batch_size:
            raise ValueError(
                f"neural_observations has shape {bins.shape}, but one bin of each of "
                f"{self.batch_size} sessions is expected: ({self.batch_size}, n_neurons)."
            )
        return bins
