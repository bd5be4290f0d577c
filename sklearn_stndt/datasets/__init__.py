"""Recordings to try things on: generators whose true rates are known."""

from .reaches import make_reaches
from .synthetic import make_chaotic_rnn, make_lorenz

__all__ = ["make_chaotic_rnn", "make_lorenz", "make_reaches"]
