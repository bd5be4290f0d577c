"""What the command says: progress and warnings on stderr, errors in one line."""

import re
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

# Arguments of the package's functions, as its errors name them, and the options in their place.
_OPTIONS = (
    ("load_nwb(..., on_error='skip')", "--skip-bad"),
    ("load_nwb(..., trials=True)", "leave --no-trials out"),
    ("on_error='skip'", "--skip-bad"),
    ("trials=False", "--no-trials"),
    ("trials=...", "--trials ..."),
    ("units=...", "--units ..."),
    ("pass align and window", "pass --align and --window"),
    ("Pass align and window", "Pass --align and --window"),
    ("overwrite=True", "--overwrite"),
    ("Then pass X.T.", "Then pass --axes neurons,bins."),
    ("e.g. window=", "e.g. --window-bins "),
    ("max_epochs", "--max-epochs"),
    ("random_state", "--random-state"),
    ("bin_width", "--bin-width"),
    ("follow_links=True", "follow_links=True to load_nwb in Python"),
)


class CommandError(Exception):
    """An error of the user's, whose text says what to do."""


@dataclass(frozen=True)
class Reporter:
    """Writes progress to stderr.

    Parameters
    ----------
    quiet : bool
        Write warnings alone.
    verbose : bool
        Write warnings of other packages too, and a line per epoch.
    """

    quiet: bool = False
    verbose: bool = False

    @property
    def level(self) -> int:
        """`verbose` of an estimator."""
        return 0 if self.quiet else 2 if self.verbose else 1

    def say(self, text: str) -> None:
        """Report progress."""
        if not self.quiet:
            print(text, file=sys.stderr, flush=True)

    def warn(self, text: str) -> None:
        """Warn in one line."""
        print(f"warning: {one_line(text)}", file=sys.stderr, flush=True)

    @contextmanager
    def reporting_warnings(self) -> Iterator[None]:
        """Show warnings as lines on stderr, each once; those of other packages if verbose."""
        seen = set()

        def show(message: Any, category: type[Warning], filename: str, *rest: Any) -> None:
            text = one_line(str(message))
            ours = "sklearn" in filename and not issubclass(
                category, DeprecationWarning | FutureWarning | PendingDeprecationWarning
            )
            # of a penalty that is too small, among several to choose from
            ours = ours and category.__name__ != "LinAlgWarning"
            if (ours or self.verbose) and text not in seen:
                seen.add(text)
                self.warn(text)

        with warnings.catch_warnings():
            warnings.simplefilter("always")
            warnings.showwarning = show  # type: ignore[assignment]
            yield


def one_line(text: str) -> str:
    """Return a message in one line, with options of the command in place of arguments."""
    text = " ".join(text.split())
    for argument, option in _OPTIONS:
        text = text.replace(argument, option)
    return re.sub(r"\b(align|trials|units|window|device)=", r"--\1 ", text)


def describe(error: BaseException) -> str:
    """Return what an error says, in one line."""
    text = one_line(str(error))
    expected = (CommandError, ValueError, TypeError, OSError, ImportError, FloatingPointError)
    if isinstance(error, MemoryError):
        return f"There is not enough memory ({text}). Use wider bins, or fewer trials or units."
    if isinstance(error, expected) and text:
        return text
    return (
        f"{type(error).__name__}: {text}. This is not expected; --traceback shows where it "
        "happened."
    )
