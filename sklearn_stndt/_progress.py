"""Progress of long work: a bar where one can be drawn, elsewhere a line now and then."""

import sys
import time
from collections.abc import Collection, Iterator, Mapping
from typing import Any, TypeVar

from tqdm.auto import tqdm

MOST_LINES = 8  # of one piece of work

Item = TypeVar("Item")


def shows_bars(stream: Any) -> bool:
    """Whether a bar can be redrawn in a stream: in a terminal or a notebook, not in a log."""
    ipython = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return hasattr(ipython, "kernel") or bool(getattr(stream, "isatty", lambda: False)())


def note(text: str) -> None:
    """Write a line to standard error, below a bar if there is one."""
    if sys.stderr is not None:
        tqdm.write(text, file=sys.stderr)
        sys.stderr.flush()


class ProgressReport:
    """Show on standard error how much of some work is done, the latest numbers and the time left.

    In terminals and notebooks, this is a bar. A file or a pipe, such as the log of a cluster, gets
    at most `MOST_LINES` lines, spread evenly over the work.

    Parameters
    ----------
    total : int
        Steps in all.
    what : str
        What the work is called.
    unit : str
        What a step is called, in the plural.
    done : int, default=0
        Steps that were done before.
    """

    def __init__(self, total: int, what: str, unit: str, *, done: int = 0):
        self.total, self.what, self.unit = total, what, unit
        self.n_lines = -1 if not done else self._n_due(done)
        self.numbers: dict[str, str] = {}
        self.bar = None
        if sys.stderr is not None and shows_bars(sys.stderr):
            self.bar = tqdm(total=total, initial=done, desc=what, unit=f" {unit}")
        self._begin(done)

    def _begin(self, done: int) -> None:
        self.n = self.first = done
        self.began = time.monotonic()

    def _n_due(self, done: int) -> int:
        return done * (MOST_LINES - 1) // max(self.total, 1)

    def move(self, done: int) -> None:
        """Continue from another step, to which work has gone back or ahead."""
        if done != self.n:
            self._begin(done)
            if self.bar is not None:
                self.bar.n = done

    def update(self, n_steps: int = 1) -> None:
        """Count steps."""
        self.n += n_steps
        if self.bar is not None:
            self.bar.update(n_steps)

    def show(self, numbers: Mapping[str, str]) -> None:
        """Show the latest numbers; in a log, write a line if it is time for one."""
        self.numbers = dict(numbers)
        if self.bar is not None:
            self.bar.set_postfix(self.numbers, refresh=False)
        elif self._n_due(self.n) > self.n_lines:
            self.n_lines = self._n_due(self.n)
            note(self.line())

    def line(self) -> str:
        """Describe the present state, for a log."""
        parts = [f"{self.what}: {self.n}/{self.total} {self.unit}"]
        parts += [f"{name} {value}" for name, value in self.numbers.items()]
        if self.first < self.n < self.total:
            pace = (time.monotonic() - self.began) / (self.n - self.first)
            parts.append(f"{tqdm.format_interval(pace * (self.total - self.n))} left")
        return ", ".join(parts)

    def close(self) -> None:
        """End the bar, which stays visible."""
        if self.bar is not None:
            self.bar.close()


def tracked(items: Collection[Item], what: str, unit: str, *, show: bool) -> Iterator[Item]:
    """Yield items, and show how many are done."""
    if not show:
        yield from items
        return
    progress = ProgressReport(len(items), what, unit)
    try:
        for item in items:
            yield item
            progress.update()
            progress.show({})
    finally:
        progress.close()
