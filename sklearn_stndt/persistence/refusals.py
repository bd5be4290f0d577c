"""What cannot be saved without pickle."""

import inspect
from typing import Any


class CannotSaveError(TypeError):
    """A value that a file without pickles cannot hold."""


def refusal(value: Any, where: str) -> CannotSaveError:
    """Make the error for a value that cannot be saved.

    Parameters
    ----------
    value : object
    where : str
        Its place, such as ``"STNDTEstimator.callbacks[0]"``.
    """
    kind = type(value)
    what = f"an object of the class {kind.__module__}.{kind.__qualname__}"
    if inspect.isroutine(value) or isinstance(value, type):
        what = f"{value.__module__}.{value.__qualname__}"
    return CannotSaveError(
        f"{where} is {what}, which cannot be saved without pickle. Change it before saving, or use "
        "joblib.dump, whose files may only be loaded if they come from people you trust."
    )
