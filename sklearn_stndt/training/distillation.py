"""Train a network on inferred rates in place of counts (distillation)."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from sklearn_stndt.network.likelihood import Likelihood, Poisson
from sklearn_stndt.windows.cutting import Windows

N_DRAWS = 16  # counts drawn for each trial
MOST_BYTES = 2**30  # of drawn counts and their rates
_POISSON = Poisson()


class Lesson(NamedTuple):
    """Counts, and the rates to be inferred from them.

    Attributes
    ----------
    counts : ndarray of shape (n_rows, n_neurons)
        NaN where missing.
    rates : ndarray of shape (n_rows, n_neurons)
        Finite.
    """

    counts: NDArray
    rates: NDArray


def draw_lessons(
    infer: Callable[[NDArray], NDArray],
    X: NDArray,
    random_state: np.random.RandomState,
    likelihood: Likelihood = _POISSON,
) -> list[Lesson]:
    """Draw counts from the rates of a recording, several times, and infer their rates.

    The rates of the recording itself are not learned: networks that were trained on its counts
    know them better than those of any other recording.

    Parameters
    ----------
    infer : callable
        Infers rates from counts of the shape of X.
    X : ndarray of shape (n_trials, n_bins, n_neurons) or (n_bins, n_neurons)
        Counts, NaN where missing; drawn counts are missing there too.
    random_state : RandomState
        Draws the counts.
    likelihood : Likelihood, default=Poisson()
        Distribution of the counts, fitted.

    Returns
    -------
    list of Lesson
        `N_DRAWS`, or as many as `MOST_BYTES` hold; if not even one, X and its rates.
    """
    n_neurons = X.shape[-1]
    rates = infer(X)
    n_draws = min(N_DRAWS, MOST_BYTES // (8 * X.size))
    if not n_draws:
        return [Lesson(X.reshape(-1, n_neurons), rates.reshape(-1, n_neurons))]
    lessons = []
    for _ in range(n_draws):
        drawn = likelihood.sample(rates, random_state).astype(np.float32)
        if X.dtype.kind == "f":
            drawn[np.isnan(X)] = np.nan
        of_drawn = infer(drawn).astype(np.float32, copy=False)
        lessons.append(Lesson(drawn.reshape(-1, n_neurons), of_drawn.reshape(-1, n_neurons)))
    return lessons


class TaughtWindows(Windows):
    """Windows with rates, each of a lesson that is drawn whenever the window is accessed.

    Parameters
    ----------
    windows : Windows
        The windows.
    lessons : list of Lesson
        Counts and rates with the rows of these windows.
    """

    def __init__(self, windows: Windows, lessons: list[Lesson]):
        super().__init__(
            windows.rows, windows.starts, windows.lengths, windows.window, windows.final
        )
        self.lessons = lessons

    def __getitems__(self, indices: ArrayLike) -> tuple[torch.Tensor, torch.Tensor]:
        """Return counts, NaN where missing, and rates, 0 after the end of a window."""
        indices = np.asarray(indices, dtype=np.intp)
        drawn = torch.randint(len(self.lessons), (len(indices),)).numpy()
        shape = (len(indices), self.window, self.rows.shape[1])
        counts, rates = np.empty(shape, dtype=np.float32), np.empty(shape, dtype=np.float32)
        for number in np.unique(drawn):
            chosen = drawn == number
            counts[chosen] = self.read(self.lessons[number].counts, indices[chosen])
            rates[chosen] = self.read(self.lessons[number].rates, indices[chosen])
        return torch.from_numpy(counts), torch.from_numpy(np.nan_to_num(rates, copy=False))

    @property
    def of_recording(self) -> Windows:
        """The same windows, with the counts of the recording."""
        return Windows(self.rows, self.starts, self.lengths, self.window, self.final)
