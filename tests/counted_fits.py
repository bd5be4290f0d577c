"""A transformer whose fits are counted."""

import numpy as np
from sklearn.base import BaseEstimator, TransformerMixin

FITS = []  # seed of each fit since a test last cleared the list


class Scaled(TransformerMixin, BaseEstimator):
    """Rates are the mean counts times a random factor; fits are counted."""

    def __init__(self, power=1.0, fails=False, heldout_neurons=None, random_state=None):
        self.power = power
        self.fails = fails
        self.heldout_neurons = heldout_neurons
        self.random_state = random_state

    def fit(self, X, y=None, groups=None):
        FITS.append(self.random_state)
        if self.fails == "now" or (self.fails == "once" and len(FITS) == 2):
            raise ArithmeticError("no fit")
        if self.fails == "interrupt" and len(FITS) == 3:
            raise KeyboardInterrupt
        mean = X.mean(axis=tuple(range(X.ndim - 1))) + 0.01
        self.rates_ = mean * np.random.RandomState(self.random_state).uniform(0.5, 2) ** self.power
        return self

    def transform(self, X, groups=None):
        return np.broadcast_to(self.rates_, X.shape)
