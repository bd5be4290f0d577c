"""
Several days, other neurons
===========================

Neurons come and go between days. The part of the network that is not tied to neurons can be kept:
:meth:`~sklearn_stndt.STNDTEstimator.adapt` starts from it, so that a few trials of other neurons
suffice. And where the same channels are recorded, :func:`~sklearn_stndt.inspection.drift` says
without labels whether the network of the first day still fits.
"""

# %%
# Another day, other neurons
# --------------------------
# Generated reaches on two days: the same dynamics and behaviour, but no neuron in common. Their
# true rates are known. The first day has 80 trials.
import matplotlib.pyplot as plt
import numpy as np
from sklearn.base import clone
from sklearn.linear_model import Ridge
from sklearn.metrics import r2_score
from sklearn.pipeline import make_pipeline

from sklearn_stndt import BinwiseRegressor, STNDTEstimator
from sklearn_stndt.datasets import make_reach_days
from sklearn_stndt.inspection import drift

monday, tuesday = make_reach_days(2, n_trials=[80, 70], n_bins=30, n_neurons=40, random_state=0)
network = STNDTEstimator(attention="temporal", random_state=0)
of_monday = network.fit(monday.spikes)

# %%
# How well are the rates of Tuesday's neurons inferred from few of their trials? The R2 is that of
# other trials of Tuesday, weighted by the variance of each neuron's rate.
n_trials = [12, 24, 40]
test = tuesday.spikes[30:]


def rates_r2(estimator):
    """R2 of inferred rates in the test trials."""
    rates = [x.reshape(-1, x.shape[-1]) for x in (tuesday.rates[30:], estimator.transform(test))]
    return r2_score(*rates, multioutput="variance_weighted")


alone = [rates_r2(clone(network).fit(tuesday.spikes[:n])) for n in n_trials]
adapted = [rates_r2(of_monday.adapt(tuesday.spikes[:n])) for n in n_trials]
for values in zip(n_trials, alone, adapted, strict=True):
    print("{:3d} trials: alone {:.2f}, adapted {:.2f}".format(*values))

# %%
# The same channels, day after day
# --------------------------------
# Now the channels stay, but each day a tenth of the neurons is lost and replaced, and the tuning of
# the others drifts. The pipeline of the first day, network and decoder, is used as it is. Its
# decoding gets worse, and ``drift``, which sees only spikes, follows.
week = make_reach_days(
    5, n_trials=90, n_bins=30, n_neurons=40, lost=0.1, tuning_drift=0.3, random_state=1
)
pipeline = make_pipeline(clone(network).set_params(max_epochs=60), BinwiseRegressor(Ridge()))
pipeline.fit(week[0].spikes[:60], week[0].velocity[:60])
drifts = [drift(pipeline, day.spikes[60:]) for day in week]
decoding = [pipeline.score(day.spikes[60:], day.velocity[60:]) for day in week]
print("day    drift    R2 of velocity")
for day, values in enumerate(zip(drifts, decoding, strict=True)):
    print("{:3d}{:9.2f}{:18.2f}".format(day + 1, *values))

# %%
# On the left: with few trials of other neurons, what was learned on Monday helps. On the right:
# drift and the loss of decoding over the days of a week.
fig, (left, right) = plt.subplots(1, 2, figsize=(8.4, 3.4), layout="constrained")
left.plot(n_trials, adapted, "o-", color="#0072B2", label="adapted from Monday")
left.plot(n_trials, alone, "o-", color="0.5", label="alone")
left.set(xlabel="trials of Tuesday", ylabel="R2 of Tuesday's rates", xticks=n_trials)
left.legend(frameon=False)
days = np.arange(1, len(week) + 1)
right.plot(days, drifts, "o-", color="#D55E00", label="drift, without labels")
right.plot(days, decoding[0] - np.array(decoding), "s-", color="0.5", label="loss of velocity R2")
right.set(xlabel="day", ylabel="relative to the first day", xticks=days)
right.legend(frameon=False)
plt.show()
