"""
Dropping curves of a recording
==============================

Which neurons of motor cortex are important for the network, and does a different kind of network
agree? The example :ref:`sphx_glr_auto_examples_plot_neuron_importance.py` answers this for
generated data with known important neurons. Here are the same curves for recordings, where they
are not known.

The script is not run when this page is made, because it needs recordings: spike counts in bins of
20 ms from the example data of DataHigh (Cowley et al. 2013), 61 units of motor and premotor cortex
of a monkey, in ``datahigh/datahigh_20ms.npz`` in the folder named by ``STNDT_DATA``.

.. code-block:: console

   $ STNDT_DATA=<folder> python examples/drop_neurons_of_a_recording.py

In four minutes on one core it prints a table and saves this figure as ``dropping_curves.png`` in
the current folder.

.. image:: ../images/dropping_curves.png
   :alt: Change of co-bps with the number of neurons dropped, for two recordings and three rankings

Change of co-bps, mean of three splits, for rankings by STNDT; two standard errors of the random
orders are .0024 to .0033:

=====================  ==========  ===========  ==========  ===========
16 neurons dropped     ex1: STNDT  ex1: NDT     ex2: STNDT  ex2: NDT
=====================  ==========  ===========  ==========  ===========
first by attention     -.050       -.055        -.024       -.028
first by gradient      -.041       -.044        -.023       -.034
first by permutation   -.057       -.057        -.044       -.047
random                 -.016       -.018        -.013       -.015
=====================  ==========  ===========  ==========  ===========

When 16 of 46 neurons are dropped, the first neurons of every ranking cost more than random ones,
both in the network that was used for the ranking and in the other one. For STNDT, the ranking by
permutation costs most, at every point on ex2 and with 8 to 20 neurons dropped on ex1; there
attention is equal at 4 and costs more at 24. Gradient is no better than chance with 8 and 12
neurons dropped on ex2. Rankings differ between recordings, and two recordings do not allow general
conclusions.
"""

# sphinx_gallery_thumbnail_path = 'images/dropping_curves.png'
import os
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from sklearn.model_selection import train_test_split
from sklearn.utils import Bunch

from sklearn_stndt import STNDTEstimator
from sklearn_stndt.inspection import neuron_dropping_curve
from sklearn_stndt.plotting import NeuronDroppingDisplay

FILE = Path("datahigh") / "datahigh_20ms.npz"
RECORDINGS = {"ex1": "ex1_spikes", "ex2": "ex2_spikes_first1s"}  # 210 x 20 bins, 112 x 50 bins
RANKINGS = ("attention", "gradient", "permutation")
SPLITS = (0, 1, 2)
N_DROPPED = range(0, 25, 4)
SCORE = "bits_per_spike"

# %%
# The splits are those of ``benchmarks/co_smoothing.py``: a fifth of the trials for testing, a
# quarter of the neurons held out. The held-out neurons are scored at every point of a curve.


def split(X, seed):
    """Return training trials, test trials, and the indices of the held-out neurons."""
    X_train, X_test = train_test_split(X, test_size=0.2, random_state=seed)
    n_neurons = X.shape[-1]
    heldout = np.random.RandomState(seed).permutation(n_neurons)[: n_neurons // 4]
    return X_train, X_test, heldout


# %%
# On each split, STNDT and NDT are trained. STNDT ranks the neurons by three methods; each ranking
# is also used for NDT, with the same random orders, so that only the network differs.


def curves_of_split(X, seed):
    """Yield (ranking, network, curve)."""
    train, test, heldout = split(X, seed)
    stndt = STNDTEstimator(heldout_neurons=heldout, random_state=seed).fit(train)
    ndt = STNDTEstimator(heldout_neurons=heldout, attention="temporal", random_state=seed)
    ndt.fit(train)
    for ranking in RANKINGS:
        curve = neuron_dropping_curve(
            stndt, test, ranking=ranking, n_dropped=N_DROPPED, random_state=seed
        )
        yield ranking, "STNDT", curve
        yield ranking, "NDT", neuron_dropping_curve(ndt, test, ranking=curve)


# %%
# Splits differ far more in their scores than in the loss when neurons are dropped. So each curve
# shows the change from its first point, averaged over the splits. The random orders of all splits
# are pooled.


def mean_loss(curves):
    """Average the change in bits per spike over the curves of all splits."""
    lost = [curve.scores[SCORE] - curve.scores[SCORE][0] for curve in curves]
    random = [curve.random_scores[SCORE] - curve.scores[SCORE][0] for curve in curves]
    random = np.concatenate(random)
    name = "change (bits/spike)"
    return Bunch(
        n_dropped=curves[0].n_dropped,
        scores={name: np.mean(lost, axis=0)},
        random_mean={name: random.mean(0)},
        random_2se={name: 2 * random.std(0, ddof=1) / np.sqrt(len(random))},
        per_split=np.array(lost),
    )


def show(recording, means):
    """Print the change at each number of neurons dropped."""
    hidden = next(iter(means.values())).n_dropped
    print(f"\n{recording}: change of co-bps, mean of {len(SPLITS)} splits")
    print(f"{'neurons dropped':27}" + "".join(f"{k:8d}" for k in hidden))
    for (ranking, network), curve in means.items():
        (change,) = curve.scores.values()
        print(f"{network:6}{ranking:21}" + "".join(f"{value:8.4f}" for value in change))
        if ranking == RANKINGS[0]:
            (mean,), (error,) = curve.random_mean.values(), curve.random_2se.values()
            print(f"{network:6}{'random':21}" + "".join(f"{value:8.4f}" for value in mean))
            print(f"{'':6}{'  two standard errors':21}" + "".join(f"{e:8.4f}" for e in error))


def main():
    """Train the networks, compute the curves, print and plot them."""
    folder = os.environ.get("STNDT_DATA")
    path = Path(folder or "") / FILE
    if not folder or not path.is_file():
        print(f"Skipped: set STNDT_DATA to a folder that holds {FILE}.")
        return
    figure, axes = plt.subplots(
        len(RANKINGS),
        len(RECORDINGS),
        figsize=(8, 8.5),
        sharex=True,
        sharey="col",
        layout="constrained",
    )
    for column, (recording, name) in enumerate(RECORDINGS.items()):
        with np.load(path) as arrays:
            X = arrays[name]
        by_kind = {}
        for seed in SPLITS:
            for ranking, network, curve in curves_of_split(X, seed):
                by_kind.setdefault((ranking, network), []).append(curve)
        means = {kind: mean_loss(curves) for kind, curves in by_kind.items()}
        show(recording, means)
        for row, ranking in enumerate(RANKINGS):
            display = NeuronDroppingDisplay.from_curves(
                {network: means[ranking, network] for network in ("STNDT", "NDT")},
                ax=axes[row, column],
            )
            if (row, column) != (0, 0):
                display.ax_.get_legend().remove()
            display.ax_.set_title(f"{recording}, by {ranking}", loc="left", fontsize="medium")
            if row < len(RANKINGS) - 1:
                display.ax_.set_xlabel("")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    axes[0, 0].get_legend().remove()
    figure.legend(handles, labels, loc="outside upper center", ncols=2, frameon=False)
    figure.savefig("dropping_curves.png", dpi=120)


if __name__ == "__main__":
    main()
