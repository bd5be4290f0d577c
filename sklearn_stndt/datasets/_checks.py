"""Checks of numeric arguments, shared by the modules of this package."""

import math
from numbers import Integral, Real


def check_count(value, name, *, minimum=1):
    """Raise an error unless `value` is an integer of at least `minimum`."""
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise TypeError(
            f"{name} must be an integer, got {value!r} of type {type(value).__name__}. "
            f"Pass a whole number of at least {minimum}."
        )
    if value < minimum:
        raise ValueError(f"{name} must be at least {minimum}, got {value}.")


def check_number(value, name, *, above=None, at_least=None, at_most=None):
    """Raise an error unless `value` is a finite number in the given range."""
    limits = {"above": above, "at least": at_least, "at most": at_most}
    wanted = "finite, " + " and ".join(f"{k} {v:g}" for k, v in limits.items() if v is not None)
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(
            f"{name} must be a number, got {value!r} of type {type(value).__name__}. "
            f"Pass a number that is {wanted}."
        )
    inside = (
        math.isfinite(value)
        and (above is None or value > above)
        and (at_least is None or value >= at_least)
        and (at_most is None or value <= at_most)
    )
    if not inside:
        raise ValueError(f"{name} must be {wanted}, got {value!r}.")
