"""
Single-trial rates and PSTHs
============================

Two checks to make first on inferred rates. Are they plausible for the population in a single trial,
where counts are too sparse to see structure? And do they, averaged over the trials of a condition,
agree with the PSTH, which needs no model? This example shows the displays for both, one for the
training, and one for spikes that are drawn from the rates.
"""

# %%
# The data
# --------
# Generated reaches to four targets, 60 neurons, trials of one second in bins of 20 ms. A third of
# the trials is set aside for testing, and all figures of rates show test trials.
# sphinx_gallery_thumbnail_number = 2
import matplotlib.pyplot as plt
import numpy as np

from sklearn_stndt import STNDTEstimator
from sklearn_stndt.datasets import make_reaches
from sklearn_stndt.metrics import psth_r2
from sklearn_stndt.plotting import (
    PSTHDisplay,
    RatesDisplay,
    SimulationDisplay,
    TrainingHistoryDisplay,
)

data = make_reaches(n_trials=180, n_conditions=4, random_state=0)
train, test = np.arange(120), np.arange(120, 180)
network = STNDTEstimator(random_state=0).fit(data.spikes[train])

# %%
# The training
# ------------
# The training loss decreases. Training stops by the bits per spike of hidden entries in validation
# windows, and the weights of the best epoch are kept.
TrainingHistoryDisplay.from_estimator(network)

# %%
# One trial
# ---------
# Neurons are sorted by the time of their highest inferred rate; each rate is relative to the
# highest rate of the neuron. The counts are the network's input. The sequence of activity across
# the population is vague in the smoothed counts and clear in the rates.
RatesDisplay.from_estimator(network, data.spikes[test], trial=0, bin_width=data.bin_width)

# %%
# The mean of a condition
# -----------------------
# The same for counts and rates averaged over all test trials of one target.
RatesDisplay.from_estimator(
    network,
    data.spikes[test],
    conditions=data.conditions[test],
    condition=0,
    bin_width=data.bin_width,
)

# %%
# PSTHs
# -----
# The smoothed mean of the counts (top) and the mean of the inferred rates (bottom), for the
# neurons that distinguish the targets best. The network was trained without the targets: it infers
# the rates
# from spikes alone.
display = PSTHDisplay.from_estimator(
    network, data.spikes[test], data.conditions[test], bin_width=data.bin_width
)

# %%
# The agreement is quantified by the R2 of the mean rates of each condition against its PSTH,
# averaged over neurons. A PSTH of 15 trials is noisy, so not even the true rates reach 1.
rates = network.transform(data.spikes[test])
for name, of_name in {"STNDT": rates, "true rates": data.rates[test]}.items():
    print(f"{name:12}{psth_r2(display.psth, of_name, data.conditions[test]):.3f}")

# %%
# Simulated spikes
# ----------------
# Spikes that are drawn from the rates, ten times, beside the data: Fano factors of all neurons,
# intervals between bins with spikes, and correlations of all pairs. Points on the dotted line, and
# curves that coincide, mean that rates and likelihood explain these statistics. These data are
# Poisson; where Fano factors of the data are higher than those of the model, try
# ``likelihood="negative_binomial"``.
SimulationDisplay.from_estimator(
    network, data.spikes[test], bin_width=data.bin_width, random_state=0
)
plt.show()
