"""Batches of windows of several sessions."""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from sklearn_stndt.windows.cutting import Windows

FEWEST_IN_BATCH = 2  # windows of a session in a batch
ENOUGH_IN_BATCH = 5  # with fewer, windows are used twice in an epoch


class SessionPart(NamedTuple):
    """What a batch has of one session."""

    session: int
    spikes: Tensor  # (n_windows, window, n_neurons of the session)


class SessionWindows(Dataset):
    """Windows of several sessions, numbered one session after the other.

    A batch may have windows of several; it is returned with their numbers, by session.

    Parameters
    ----------
    sessions : sequence of Windows
        Windows of each session, with its own neurons; they are read from its own array.
    """

    def __init__(self, sessions: Sequence[Windows]):
        self.sessions = sessions
        self.sizes = [len(windows) for windows in sessions]
        self.edges = np.concatenate([[0], np.cumsum(self.sizes)])
        self.window = sessions[0].window

    def __len__(self) -> int:
        return int(self.edges[-1])

    def __getitem__(self, index: int) -> tuple[Tensor, list[SessionPart]]:
        return self.__getitems__([index])

    def __getitems__(self, indices: Sequence[int]) -> tuple[Tensor, list[SessionPart]]:
        """Return the indices of a batch, and what it has of each session."""
        rows = np.asarray(indices)
        session_of = np.searchsorted(self.edges, rows, side="right") - 1
        parts = []
        for session in np.unique(session_of):
            within = rows[session_of == session] - self.edges[session]
            spikes, _ = self.sessions[session].__getitems__(within)
            parts.append(SessionPart(int(session), spikes))
        return torch.as_tensor(rows), parts


class SessionBatches(Sampler):
    """Training batches with windows of all sessions.

    A step of the core follows the mean gradient over sessions, and the weights that belong to the
    neurons of a session are updated in as many batches as those of the largest one, unless this
    would leave less than two of its windows for a batch. Every window is used once in an epoch, or
    twice if a batch would have less than five of its session.

    Parameters
    ----------
    sizes : sequence of int
        Number of windows of each session.
    batch_size : int
        Windows of the largest session in a batch, at most.
    most : int or None, default=None
        Most batches in an epoch; if there are more, it is a random part of them.
    """

    def __init__(self, sizes: Sequence[int], batch_size: int, most: int | None = None):
        self.sizes = sizes
        self.n_batches = n_batches = -(-max(sizes) // batch_size)
        self.n_drawn = [max(size, min(2 * size, ENOUGH_IN_BATCH * n_batches)) for size in sizes]
        self.n_parts = [max(min(n_batches, n // FEWEST_IN_BATCH), 1) for n in self.n_drawn]
        self.n_used = n_batches if most is None else min(n_batches, most)

    def __len__(self) -> int:
        return self.n_used

    def __iter__(self) -> Iterator[list[int]]:
        batches: list[list[int]] = [[] for _ in range(self.n_batches)]
        edges = np.concatenate([[0], np.cumsum(self.sizes)]).tolist()
        for session in np.argsort(self.sizes)[::-1].tolist():
            size, n_drawn = self.sizes[session], self.n_drawn[session]
            if not size:
                continue
            drawn = torch.cat([torch.randperm(size), torch.randperm(size)])[:n_drawn]
            parts = (edges[session] + drawn).tensor_split(self.n_parts[session])
            # to those batches that have the fewest windows so far
            order = torch.randperm(self.n_batches).tolist()
            emptiest = sorted(order, key=lambda i: len(batches[i]))
            for i, part in zip(emptiest, parts, strict=False):
                batches[i] += part.tolist()
        for i in torch.randperm(self.n_batches)[: self.n_used].tolist():
            yield batches[i]


class SessionsInTurn(Sampler):
    """Batches for validation, each of windows of one session, in order.

    Parameters
    ----------
    sizes : sequence of int
        Number of windows of each session.
    batch_size : int
        Windows per batch, at most.
    """

    def __init__(self, sizes: Sequence[int], batch_size: int):
        edges = np.concatenate([[0], np.cumsum(sizes)])
        self.batches = [
            list(range(first, min(first + batch_size, stop)))
            for start, stop in pairwise(edges.tolist())
            for first in range(start, stop, batch_size)
        ]

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[list[int]]:
        return iter(self.batches)
