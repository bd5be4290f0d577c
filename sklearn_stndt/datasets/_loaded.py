"""What loaders and generators return."""

from typing import Any

import numpy as np
from sklearn.utils import Bunch


class Loaded(Bunch):
    """Dictionary with its items as attributes, which prints shapes instead of numbers."""

    def __repr__(self) -> str:
        width = max(map(len, self), default=0)
        lines = (f"{name:{width}}  {_short(value)}" for name, value in self.items())
        return "\n".join(lines)


class Series(dict):
    """Time series by name; a series in a container is also found by its own name.

    The name of a series in a container is "container_series", or its path in the file.
    """

    def __missing__(self, name: Any) -> Any:
        found = [one for one in self if str(one).endswith((f"_{name}", f"/{name}"))]
        if len(found) == 1:
            return self[found[0]]
        raise KeyError(f"There is no time series {name!r}, only {list(self)}.")


def _short(value: Any) -> str:
    """Describe a value in one line."""
    if hasattr(value, "columns"):
        columns = ", ".join(map(str, value.columns))
        return f"table of {len(value):,} rows: {columns}"
    if isinstance(value, np.ndarray) and value.ndim:
        return f"array {value.shape} {value.dtype}"
    if isinstance(value, dict):
        return ", ".join(f"{name}: {_short(one)}" for name, one in value.items()) or "none"
    text = repr(value)
    return text if len(text) <= 70 else f"{text[:67]}..."
