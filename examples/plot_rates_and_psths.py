"""
Rates of one trial, and their means over many
=============================================

Two questions to put to inferred rates before anything else. Do they look like the population in a
single trial, where counts are too few to see anything? And do they, averaged over the trials of a
condition, agree with the PSTH, which needs no model at all? Here are the displays for both, and one
for the training itself.
"""

# %%
# The data
# --------
# Generated reaches to four targets, 60 neurons, trials of one second in bins of 20 ms. A third of
# the trials is set aside, and all pictures are of these.
# sphinx_gallery_thumbnail_number = 2
import matplotlib.pyplot as plt
import numpy as np

from sklearn_stndt import STNDTEstimator
from sklearn_stndt.datasets import make_reaches
from sklearn_stndt.metrics import psth_r2
from sklearn_stndt.plotting import PSTHDisplay, RatesDisplay, TrainingHistoryDisplay

data = make_reaches(n_trials=180, n_conditions=4, random_state=0)
train, test = np.arange(120), np.arange(120, 180)
network = STNDTEstimator(random_state=0).fit(data.spikes[train])

# %%
# The training
# ------------
# Training windows lose less and less. What tells when to stop are the bits per spike of entries
# that were hidden in windows that were set aside; the weights of the best epoch are kept.
TrainingHistoryDisplay.from_estimator(network)

# %%
# One trial
# ---------
# Neurons are sorted by the time of their highest inferred rate, each relative to its own highest.
# The counts of the trial are what the network saw. The wave that runs through the population
# can be guessed from the smoothed counts, and read from the rates.
RatesDisplay.from_estimator(network, data.spikes[test], trial=0, bin_width=data.bin_width)

# %%
# The mean of a condition
# -----------------------
# The same for all test trials of one target, averaged: of the counts as of the rates.
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
# The smoothed mean of the counts above, the mean of the inferred rates below, for the neurons that
# tell the targets apart best. The network was never told of targets; it has them from the spikes.
display = PSTHDisplay.from_estimator(
    network, data.spikes[test], data.conditions[test], bin_width=data.bin_width
)

# %%
# As a number: R2 of the mean rates of each condition against its PSTH, mean over neurons. A PSTH of
# 15 trials is noisy itself, so that not even the true rates reach 1.
rates = network.transform(data.spikes[test])
for name, of_name in {"STNDT": rates, "true rates": data.rates[test]}.items():
    print(f"{name:12}{psth_r2(display.psth, of_name, data.conditions[test]):.3f}")
plt.show()
