"""Packages of the extra `save`."""

import importlib.util
from types import ModuleType

_PACKAGES = ("safetensors", "skops")


def extra(name: str) -> ModuleType:
    """Import a module of a package that is not required.

    Raises
    ------
    ImportError
        If the package is missing; the error names the extra.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        package = name.partition(".")[0]
        raise ImportError(
            f"Saving and loading models needs {package}, which is not installed. Install it with: "
            'pip install "sklearn-stndt[save]"'
        ) from error


def have_extras() -> bool:
    """Whether the packages are installed."""
    return all(importlib.util.find_spec(name) is not None for name in _PACKAGES)
