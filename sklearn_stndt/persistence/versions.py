"""Versions of packages that may change the last bits of a result."""

import platform
from importlib.metadata import version

_PACKAGES = ("torch", "skorch", "scikit-learn", "numpy")


def versions() -> dict[str, str]:
    """Return the versions of this package, of those that it computes with, and of Python."""
    from sklearn_stndt import __version__

    found = {name: version(name) for name in _PACKAGES}
    return {"sklearn_stndt": __version__} | found | {"python": platform.python_version()}
